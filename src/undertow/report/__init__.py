"""Words and numbers to pages: page, charts, tidy tables, terminal, publishing."""
