"""A timeline as tables: CSV and Parquet."""
