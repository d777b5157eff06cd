"""Photos wherever they are kept: folders, lists, object stores, tar archives and Parquet files."""
