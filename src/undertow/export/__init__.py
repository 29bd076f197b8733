"""Teachers and directions in forms that other engines read.

`teacher` writes teacher(alpha) as a plain checkpoint (`llama` lays it out), `direction` the
direction alone: a control vector for llama.cpp, or safetensors.
"""
