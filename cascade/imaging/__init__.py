"""Photos: finding their files, decoding them safely, and preparing the pixels that a graph takes."""
