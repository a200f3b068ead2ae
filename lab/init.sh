#!/bin/sh
# The guest's first process: puts an overlay over the host's files, runs the job, tells its status.
#
# /run/settings (written by lab/guest.py) sets release, base, modprobe, out, netdevsim and defines
# the function job. The root is the host's tree, read-only; everything written goes to memory.
# A failing step ends this process: the kernel panics, which the host sees at once.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1
mount -t proc proc /proc
. /run/settings

# Compiled in, in some kernels; then the mount below works without.
[ -z "$base" ] || "$modprobe" -d "$base" overlay || echo "lab: no overlay module"

mount -t tmpfs -o mode=0755 tmpfs /run/top
mkdir /run/top/upper /run/top/work
mount -t overlay -o lowerdir=/,upperdir=/run/top/upper,workdir=/run/top/work lab /run/root
cd /run/root
pivot_root . mnt
mount -n -a -T /mnt/run/fstab
[ -z "$out" ] || mount -t virtiofs out "$out"

echo netbpf-lab >/proc/sys/kernel/hostname
ip link set lo up
if [ -n "$base" ]; then
    # The kernel and people ask for modules where they always are.
    mkdir -p /lib/modules
    [ -e "/lib/modules/$release" ] || ln -s "$base/lib/modules/$release" /lib/modules/
    [ -e /sbin/modprobe ] || ln -s "$modprobe" /sbin/modprobe
    [ -z "$netdevsim" ] || modprobe netdevsim
fi
umount -l /mnt

mkdir -m 0700 /run/netbpf-lab
mkfifo /run/netbpf-lab/stdout /run/netbpf-lab/stderr
# A pipe and a cat each: a port can be opened only once, so /dev/stderr would be EBUSY.
cat </run/netbpf-lab/stdout >/dev/vport0p1 &
stdout=$!
cat </run/netbpf-lab/stderr >/dev/vport0p2 &
stderr=$!
exec 3>/dev/vport0p3
echo ready >&3

status=0
(job 3>&-) </dev/null >/run/netbpf-lab/stdout 2>/run/netbpf-lab/stderr || status=$?

# What the job left behind would keep the pipes open.
for process in /proc/[0-9]*; do
    process=${process#/proc/}
    case $process in
        1 | "$stdout" | "$stderr") ;;
        *) kill -9 "$process" 2>/dev/null || : ;;
    esac
done
wait "$stdout" "$stderr"
cd /
[ -z "$out" ] || umount "$out" || sync
echo "exit $status" >&3
# The host ends the guest now.
while :; do sleep 60; done
