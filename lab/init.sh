#!/bin/sh
# The guest's first process: puts an overlay over the host's files, runs the job, tells its status.
#
# /run is written by lab/guest.py: settings sets release, base, modprobe, out and netdevsim and
# defines the function job. The root is the host's tree, read-only; what is written goes to memory.
# A failing step ends this process: the kernel panics, which the host sees at once.
# Each program costs 20 ms and more where the processor is emulated, so there are few.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

mount -n -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1
mount -n -t proc proc /proc
. /run/settings

# Some kernels have it compiled in; if it is missing altogether, the mount below says so.
[ -z "$base" ] || "$modprobe" -d "$base" overlay || :
mount -n -t tmpfs tmpfs /run/top
mkdir /run/top/upper /run/top/work
mount -n -t overlay -o lowerdir=/,upperdir=/run/top/upper,workdir=/run/top/work lab /run/root
cd /run/root
[ -d mnt ] || mkdir mnt
pivot_root . mnt
# Not every kernel has all of them.
mount -n -a -T /mnt/run/fstab || :
[ -z "$out" ] || mount -n -t virtiofs out "$out"

cp -P /mnt/run/dev/* /dev/
echo netbpf-lab >/proc/sys/kernel/hostname
ip link set lo up
if [ -n "$base" ]; then
    # The kernel and people look for modules where they always are.
    [ -d /lib/modules ] || mkdir /lib/modules
    [ -e "/lib/modules/$release" ] || ln -s "$base/lib/modules/$release" /lib/modules/
    [ -e /sbin/modprobe ] || ln -s "$modprobe" /sbin/modprobe
fi
[ -z "$netdevsim" ] || modprobe netdevsim
umount -l /mnt

# A pipe and a cat each: a port can be opened only once, so /dev/stderr would be EBUSY.
mkfifo -m 0600 /run/lab.stdout /run/lab.stderr
cat </run/lab.stdout >/dev/vport0p1 &
stdout=$!
cat </run/lab.stderr >/dev/vport0p2 &
stderr=$!
exec 3>/dev/vport0p3
echo ready >&3

status=0
(job 3>&-) </dev/null >/run/lab.stdout 2>/run/lab.stderr || status=$?

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
# Until it is unmounted, what was written through a mapping may be only here.
[ -z "$out" ] || umount "$out" || sync
echo "exit $status" >&3
# The host ends the guest now.
while :; do sleep 60; done
