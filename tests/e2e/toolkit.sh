# A CUDA toolkit that appears after a build without one, or goes: what depends on it is made again, and nothing else.
. "$(dirname "$0")/common.bash"

registry="$T/build/kernels/registry.o"
built() { # NVCC: the registry with that toolkit
    env -u MAKEFLAGS -u MAKELEVEL make -s -C "$root" B="$T/build" NVCC="$1" "$registry" >run.out 2>run.err || fail "the registry does not build with NVCC='$1'"
}
# Without a toolkit the registry itself says that there is no device; with one that is the CUDA files' part.
says_no_device() { nm "$registry" | grep -q ' T mk_device_sm'; }

built ""
says_no_device || fail "a build without a toolkit asks CUDA for a device"
built "$(command -v true)"
! says_no_device || fail "the registry was not made again when a toolkit appeared"
before=$(stat -c %y "$registry")
built "$(command -v true)"
[ "$(stat -c %y "$registry")" = "$before" ] || fail "made again although nothing changed"
built ""
says_no_device || fail "the registry was not made again when the toolkit went"
