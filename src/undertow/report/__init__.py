"""Words and numbers to pages: report.html, charts, tidy tables, the terminal, a folder to publish."""
