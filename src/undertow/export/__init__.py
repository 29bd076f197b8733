"""Teachers and directions in forms that other engines read.

`teacher` writes teacher(alpha) as a plain checkpoint, `direction` writes the direction alone.
"""
