"""Written by provision's acceptance: fills memory of its GPU, reads it back, and says which GPU it was.

CUDA's driver API by ctypes: no image needs more than the driver's library for it.
"""

import ctypes
import uuid

import numpy
import triton_python_backend_utils as pb_utils

SIZE = 256 << 20  # bytes


class TritonPythonModel:
    """One for each GPU of the server (KIND_GPU)."""

    def initialize(self, args):
        """Take memory of the GPU that Triton assigns."""
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), int(args["model_instance_device_id"]))
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        self.context, self.memory = context, ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(self.memory), ctypes.c_size_t(SIZE))
        found = ctypes.create_string_buffer(16)
        self.call("cuDeviceGetUuid", found, device)
        self.gpu = f"GPU-{uuid.UUID(bytes=found.raw)}"

    def call(self, name, *arguments):
        """A function of the driver, which must succeed."""
        code = getattr(self.cuda, name)(*arguments)
        if code:
            raise pb_utils.TritonModelException(f"{name}: CUDA error {code}")

    def execute(self, requests):
        """Answer with what the last byte of the memory holds after it was filled."""
        responses = []
        self.call("cuCtxSetCurrent", self.context)
        for request in requests:
            value = int(pb_utils.get_input_tensor_by_name(request, "VALUE").as_numpy()[0])
            read = ctypes.c_ubyte()
            self.call("cuMemsetD8_v2", self.memory, ctypes.c_ubyte(value), ctypes.c_size_t(SIZE))
            last = ctypes.c_uint64(self.memory.value + SIZE - 1)
            self.call("cuMemcpyDtoH_v2", ctypes.byref(read), last, ctypes.c_size_t(1))
            outputs = [
                pb_utils.Tensor("VALUE", numpy.array([read.value], dtype=numpy.uint8)),
                pb_utils.Tensor("GPU", numpy.array([self.gpu.encode()], dtype=object)),
            ]
            responses.append(pb_utils.InferenceResponse(output_tensors=outputs))
        return responses
