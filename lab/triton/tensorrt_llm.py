"""Stand-in for TensorRT-LLM: not NVIDIA's library.

It does one thing as the real one does: importing it initialises NVML, so an import in a
container without the driver's libraries ends in ``pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not
Found`` (triton-inference-server/server#7574).
"""

import pynvml

__version__ = "VERSION"
__stand_in__ = True

pynvml.nvmlInit()
device_count = pynvml.nvmlDeviceGetCount()
pynvml.nvmlShutdown()
