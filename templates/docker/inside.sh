# shellcheck shell=sh
# What verification runs inside a container.

# Seconds that importing tensorrt_llm may take; it loads gigabytes of libraries.
import_patience=300

# Starts NVML by the driver's library, as pynvml does.
start_nvml='import ctypes, sys; code = ctypes.CDLL("libnvidia-ml.so.1").nvmlInit_v2(); sys.exit(code and f"NVML error {code}")'

# try_step NAME SECONDS COMMAND...: its output and its exit code, each step below its name.
try_step() { echo "== $1"; shift; timeout -k 5 "$@" 2>&1; code=$?; echo; echo "== exit $code"; }

# try_gpus: what NVML and nvidia-smi see.
try_gpus() {
  try_step nvml 60 python3 -c "$start_nvml"
  try_step gpus 60 nvidia-smi -L
}

# try_tensorrt_llm: the import that fails where the driver's libraries are missing.
try_tensorrt_llm() { try_step tensorrt_llm "$import_patience" python3 -c "import tensorrt_llm"; }

# list_gpus: what a container that is to have no GPU sees all the same.
# shellcheck disable=SC2010  # names of device nodes
list_gpus() { nvidia-smi -L; ls /dev | grep -E '^nvidia[0-9]+$' | sed 's/^/device node /'; }
