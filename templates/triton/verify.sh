# shellcheck shell=sh
# needs: triton/http.sh
# What verification asks of Triton's servers.

# Seconds for GPU metrics to rise from 0, which is what they read right after the start.
metrics_patience=10

# risen_metrics ADDRESS PORT TEXT: the metrics, asked again while there are GPUs in them whose memory still reads 0.
risen_metrics() {
  end=$(($(date +%s) + metrics_patience))
  while answer=$(http_request "$@"); do
    printf '%s\n' "$answer" | grep -q '^nv_gpu_memory_total_bytes{.*} 0$' || break
    [ "$(date +%s)" -lt "$end" ] || break
    sleep 1
  done
  printf '%s\n\n' "$answer"
}
