# What tools/run and tools/test share; sourced, not run. ROOT is the top of the tree.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export LC_ALL=C.UTF-8

say() { printf '%s\n' "$*"; }
die() {
    printf '%s\n' "$*" >&2
    exit 2
}

# packages_of SECTION...: the Debian packages that tools/lib/packages lists for these sections.
packages_of() {
    local section
    for section in "$@"; do
        sed -n "s/^$section: *//p" "$ROOT/tools/lib/packages"
    done | tr ' ' '\n' | sort -u | grep .
}

# need_packages SECTION...: installs what is missing, and says so first.
need_packages() {
    local missing=() package sudo=()
    command -v dpkg-query >/dev/null || die "This script installs Debian packages, and this is no Debian system." \
        "Install the packages listed in tools/lib/packages by other means, then build with cmake --preset release."
    for package in $(packages_of "$@"); do
        command -v "${package#*/}" >/dev/null && continue # PACKAGE/COMMAND: the command will do
        package=${package%/*}
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "Installing Debian packages: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "Neither root nor sudo: as root, run: apt-get install ${missing[*]}"
        sudo=(sudo)
    fi
    export DEBIAN_FRONTEND=noninteractive
    "${sudo[@]}" apt-get update -qq </dev/null || die "apt-get update failed."
    "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null ||
        die "apt-get install failed."
}

# build PRESET [TARGET...]: configures and builds; quiet unless it fails.
build() {
    local preset=$1 log
    shift
    mkdir -p "$ROOT/build"
    log=$ROOT/build/$preset.log
    say "Building ($preset), log in build/$preset.log"
    if ! { (cd "$ROOT" && cmake --preset "$preset" && cmake --build "build/$preset" ${*:+--target "$@"}) \
        </dev/null >"$log" 2>&1; }; then
        tail -n 40 "$log" >&2
        return 1
    fi
}
