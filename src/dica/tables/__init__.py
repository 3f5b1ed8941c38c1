"""From scores to cells.csv and the tables in Markdown, TeX and HTML."""
