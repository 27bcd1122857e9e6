#!/usr/bin/env bash
# Builds the binaries of the local Kubernetes from Go modules, once, into a cache outside the checkout.
#
#   tests/cluster/build.sh [NAME...|all]     default: the control plane and kwok
#
# A binary is built again only when its go.mod or go.sum changed. etcd and kube-apiserver are taken from
# KUBEBUILDER_ASSETS where that folder has them. Two callers at once wait for each other.
# The last line on stdout is the folder with the binaries; everything else goes to stderr.
set -euo pipefail

KUBERNETES_VERSION=v1.36.3
CONTROL_PLANE=(etcd kube-apiserver kube-controller-manager kube-scheduler kwok)
NODE=(kubelet kube-proxy coredns)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${PURSER_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/purser}/testbed/$KUBERNETES_VERSION/bin

say() { echo "testbed: $*" >&2; }

# Prints the go.mod folder, the package and the linker flags of a binary.
recipe() {
    local version=k8s.io/component-base/version minor=${KUBERNETES_VERSION#v1.}
    case $1 in
        etcd) echo "etcd go.etcd.io/etcd/server/v3 -s -w" ;;
        kwok) echo "kwok sigs.k8s.io/kwok/cmd/kwok -s -w" ;;
        coredns) echo "coredns . -s -w" ;;
        kube-apiserver | kube-controller-manager | kube-scheduler | kube-proxy | kubelet)
            # Without these the server reports v0.0.0 and clients that compare versions go astray.
            echo "kubernetes k8s.io/kubernetes/cmd/$1 -s -w -X $version.gitVersion=$KUBERNETES_VERSION -X $version.gitMajor=1 -X $version.gitMinor=${minor%.*}"
            ;;
        *)
            say "unknown binary '$1'; known: ${CONTROL_PLANE[*]} ${NODE[*]}, or all"
            exit 2
            ;;
    esac
}

# True when KUBEBUILDER_ASSETS provides this binary.
is_provided() {
    [[ ($1 == etcd || $1 == kube-apiserver) && -n ${KUBEBUILDER_ASSETS:-} && -x $KUBEBUILDER_ASSETS/$1 ]]
}

build() {
    local name=$1 folder package flags recipe stamp started
    recipe=$(recipe "$name")
    read -r folder package flags <<<"$recipe"
    stamp=$(cat "$here/go/$folder/go.mod" "$here/go/$folder/go.sum" | sha256sum | cut -c1-16)
    [[ -x $bin/$name && $(cat "$bin/.$name.stamp" 2>/dev/null) == "$stamp" ]] && return
    command -v go >/dev/null || { say "cannot build $name: no 'go' on the PATH; install Go 1.26 or later"; exit 1; }
    say "building $name (once; minutes on a small machine) …"
    started=$SECONDS
    (cd "$here/go/$folder" && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$bin/.$name.new" "$package") >&2
    mv "$bin/.$name.new" "$bin/$name"
    echo "$stamp" >"$bin/.$name.stamp"
    say "built $name in $((SECONDS - started)) s"
}

names=("$@")
[[ $# -eq 0 ]] && names=("${CONTROL_PLANE[@]}")
[[ ${names[0]} == all ]] && names=("${CONTROL_PLANE[@]}" "${NODE[@]}")
for name in "${names[@]}"; do recipe "$name" >/dev/null; done

mkdir -p "$bin"
exec 9>"$bin/.lock"
flock --nonblock 9 || { say "another build is running; waiting for it …"; flock 9; }
for name in "${names[@]}"; do
    if is_provided "$name"; then say "$name is taken from $KUBEBUILDER_ASSETS"; else build "$name"; fi
done
echo "$bin"
