"""The gallery: each bundled workload with its picture, its verdict and what to look for."""
SOURCE="gallery.md"
DOWNLOADS="samples"
def downloads(): return []
def page(markdown): return markdown
