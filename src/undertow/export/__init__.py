"""Teachers and directions in forms that other engines read, and questions for those engines.

`teacher` writes teacher(alpha) as a plain checkpoint (`llama` lays it out), `direction` the
direction alone: a control vector for llama.cpp, or safetensors. `questions` writes what a stage
would ask, and `asking` asks it.
"""
