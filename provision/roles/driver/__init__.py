"""The NVIDIA driver on a host: kernels, modules, device nodes, and reboots."""
