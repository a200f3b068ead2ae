#!/usr/bin/env bash
# A container's network as a script: a namespace with one end of a netkit pair, and two programs on
# what the container sends, one before the other. Needs root, Linux 6.7, clang, jq and ping.
#
# Takes all of it back at the end, also when a step fails or Ctrl-C comes; a real set-up would do so
# only on failure. The host's end is in a namespace too, so that trying it out changes nothing on the
# host: leave out --netns for the real one.
set -euo pipefail
cd "$(dirname "$0")"

NETBPF=${NETBPF:-netbpf}
id=$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
container=container-$id
host=host-$id
device=nk-$id
pins=/sys/fs/bpf/$container
folder=$(mktemp -d)

clean_up() {
	trap '' HUP INT TERM
	# A link goes with its last pin, a device with its namespace.
	rm -rf "$pins" "$folder"
	for name in "$container" "$host"; do
		[[ ! -e /run/netns/$name ]] || "$NETBPF" netns del "$name"
	done
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

"$NETBPF" netns add "$host" "$container"

# The primary is ours: programs for both sides are attached there. The peer is the container's eth0,
# and until a program is attached nothing that it sends comes through.
"$NETBPF" --netns "$host" netkit add "$device" --addr 10.214.0.1/24 \
	--peer eth0 --peer-netns "$container" --peer-addr 10.214.0.2/24 --peer-policy blackhole --up

# Somebody's policy, and before it a counter. With --json a command tells what it made, for the next.
clang -O2 -g -target bpf "-I/usr/include/$(uname -m)-linux-gnu" -c icmp_guard.c -o "$folder/icmp_guard.o"
guard=$("$NETBPF" --netns "$host" netkit attach "$device" peer "$folder/icmp_guard.o" \
	--set max_len=500 --pin "$pins/guard" --json | jq -er .attached.link.id)
count=$("$NETBPF" --netns "$host" netkit attach "$device" peer builtin:count \
	--before "link:$guard" --pin "$pins/count" --json | jq -er .attached.prog.id)
"$NETBPF" --netns "$host" netkit chain "$device" peer

# What the container answers to a small ping passes, to a large one not.
ping_container() { "$NETBPF" netns exec "$host" -- ping -n -q -c 3 -i 0.2 -W 1 "$@" 10.214.0.2; }
ping_container
if ping_container -s 1000; then
	echo "the large ping came through" >&2
	exit 1
fi

map=$("$NETBPF" prog show "id:$count" --json | jq -er '.programs[0].map_ids[0]')
packets=$("$NETBPF" map dump "$map" --json | jq '[.elements[].value[].packets] | add')
echo "the container sent $packets packets"
