"""From trained networks to a bundle on disk."""
