#!/usr/bin/env bash
# Packs the frameworks for a machine without a network that has torch, transformers, peft and accelerate:
#   bash tests/frameworks/pack.sh OUT.tar.xz      (about 36 MB; Python 3.12, x86-64, CUDA 13)
# axolotl pins an older trl, so it has a folder of its own before the common one.
set -euo pipefail
out=$(realpath -m "${1:?usage: pack.sh OUT.tar.xz}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
platforms=()
for p in manylinux_2_{17,24,27,28,34}_x86_64 manylinux2014_x86_64 manylinux1_x86_64; do platforms+=(--platform "$p"); done

# wheels FOLDER PACKAGE==VERSION..
wheels() {
    python3 -m pip install -q --no-deps --no-compile --python-version 3.12 --implementation cp "${platforms[@]}" --only-binary=:all: --target "$work/all/$1" "${@:2}"
}
wheels site trl==1.15.0 datasets==4.8.5 dill==0.4.1 multiprocess==0.70.18 unsloth==2026.10.9 unsloth_zoo==2026.10.9 bitsandbytes==0.50.2 \
    cut_cross_entropy==25.1.1 diffusers==0.42.1 torchao==0.18.0 tyro==1.0.17 docstring_parser==0.18.0 shtab==1.13.0 typeguard==4.6.1 \
    hf_transfer==0.1.9 json5==0.17.3 msgspec==0.22.0 nest_asyncio==1.6.0 structlog==26.1.0
wheels site_axl axolotl==0.19.0 trl==1.9.0 pydantic==2.12.5 pydantic_core==2.41.5 annotated_types==0.8.0 \
    typing_inspection==0.4.5 addict==2.4.0 backoff==2.2.1 distro==1.9.0 evaluate==0.4.1 fastcore==2.2.39 fire==0.7.1 posthog==6.7.11 \
    python_dotenv==1.0.1 six==1.17.0 termcolor==3.3.0
python3 -m pip install -q --no-deps --no-compile --upgrade --target "$work/all/site_axl" axolotl_contribs_lgpl==0.0.7 # has no wheel
mkdir -p "$work/all/stubs/numba" # axolotl imports it for packing, which is not used here
printf 'def njit(function=None, **_):\n    return function if function else njit\n\n\njit = njit\n' >"$work/all/stubs/numba/__init__.py"
find "$work/all/site/bitsandbytes" -name 'libbitsandbytes_*' ! -name '*cuda130*' ! -name '*cpu*' -delete # one for every CUDA
find "$work/all" -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
tar -C "$work/all" -c . | xz -T0 -6 >"$out"
du -h "$out"
