# Flags of the compilers for a binary that is handed out. Sourced, in the repository, by the scripts that build one.

# Sets RUSTFLAGS and CFLAGS for cargo: those of the caller, and the flags of Rust that are given. Paths of this machine do
# not enter the binary: the repository is `.` there, the folder of the sources of crates `cargo`, that of the compiler `rust`.
set_flags() {
    local paths=("${CARGO_HOME:-$HOME/.cargo}=cargo" "$(rustc --print sysroot)=rust") path
    # Of two that fit, the compilers take the last one.
    [ -z "${CARGO_TARGET_DIR:-}" ] || paths+=("$(realpath --canonicalize-missing "$CARGO_TARGET_DIR")=./target")
    paths+=("$PWD=.")
    CARGO_ENCODED_RUSTFLAGS=$(printf '%s\x1f' ${RUSTFLAGS:-} "$@" "${paths[@]/#/--remap-path-prefix=}")
    CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%$'\x1f'}
    for path in "${paths[@]/#/-ffile-prefix-map=}"; do
        CFLAGS="${CFLAGS:-} ${path@Q}"
    done
    # The quotes are for a path with a space.
    CC_SHELL_ESCAPED_FLAGS=1
    export CARGO_ENCODED_RUSTFLAGS CFLAGS CC_SHELL_ESCAPED_FLAGS
}
