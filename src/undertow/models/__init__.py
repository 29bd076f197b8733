"""From weights on disk to a loaded model: where a prompt is rendered, how blocks are found.

`memory` shrinks a batch that does not fit on the device.
"""
