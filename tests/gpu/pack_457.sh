# A folder that carries transformers 4.57 to a machine without a network: bash tests/gpu/pack_457.sh DIR; there PYTHONPATH=DIR.
# Of its models only what the checks make is in it.
set -eu
out=$(realpath -m "$1")
eval "$(bash "$(dirname "$0")/../bridge/setup_venv.sh")"
rm -rf "$out"
mkdir -p "$out"
at() { "$PY457" -c "import os, $1; print(os.path.dirname(os.path.dirname($1.__file__)))"; }
pack() { # module, tar's arguments..
    (cd "$(at "$1")" && tar -c --exclude='__pycache__' "${@:2}") | tar -x -C "$out"
}
pack transformers --exclude='transformers/models/*' transformers $(cd "$(at transformers)" && echo transformers-*.dist-info)
pack transformers transformers/models/__init__.py transformers/models/{auto,qwen3_moe,encoder_decoder,timm_wrapper,bloom}
for module in huggingface_hub tokenizers requests urllib3 charset_normalizer idna certifi; do
    pack "$module" "$module" $(cd "$(at "$module")" && echo "$module"-*.dist-info)
done
du -sh "$out"
