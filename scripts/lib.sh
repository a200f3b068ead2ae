# What the scripts share: words on standard error, and what the machine must have. Sourced by bash.
# shellcheck shell=bash

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
	say "$@"
	exit 1
}

# Debian package, and what shows that it is there: a program, or a header where it has a slash. Asked
# for by what it brings, not by name: a machine may have it from elsewhere.
needed_packages() {
	cat <<-'END'
		clang clang
		llvm llvm-strip
		linux-libc-dev linux/bpf.h
		libbpf-dev bpf/bpf_helpers.h
		iproute2 ip
		iputils-ping ping
		bpftool bpftool
		jq jq
		util-linux nsenter
		mount mount
		gcc gcc
		libc6-dev sys/types.h
		make make
		flex flex
		bison bison
		bc bc
		xz-utils xz
		libelf-dev gelf.h
		libssl-dev openssl/ssl.h
	END
}

# Prints the names of the missing ones.
missing_packages() {
	local package sign PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
	while read -r package sign; do
		case $sign in
		*.h) has_header "$sign" || echo "$package" ;;
		*) type -P "$sign" >/dev/null || echo "$package" ;;
		esac
	done < <(needed_packages)
}

has_header() {
	local file
	for file in /usr/include/"$1" /usr/include/*-linux-gnu*/"$1"; do
		[[ -e $file ]] && return
	done
	return 1
}

# Prints the first Python that is new enough, whether it can make environments or not.
find_python() {
	local python
	for python in python3 /usr/bin/python3 python3.{14,13,12,11}; do
		python=$(type -P "$python") || continue
		"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
		echo "$python"
		return
	done
	return 1
}

# Compiles C files into objects that are kept in the repository beside them: COMPILER FLAGS… -- FILE…
compile_kept() {
	local compiler=$1 headers source folder name flags=()
	shift
	while [[ $1 != -- ]]; do
		flags+=("$1")
		shift
	done
	shift
	headers=$(dirname "$(find /usr/include -path '*-linux-gnu/asm/types.h' | head -n 1)")/..
	for source in "$@"; do
		folder=$(dirname "$source")
		name=$(basename "$source" .c)
		# From its folder and by its bare name, so that no path of this machine gets into the object.
		(cd "$folder" && "$compiler" -O2 -g -Wall -Werror -target bpf "-I$headers" "${flags[@]}" \
			-fdebug-compilation-dir=. -c "$name.c" -o "$name.o.new")
		llvm-strip -g "$folder/$name.o.new"
		mv "$folder/$name.o.new" "$folder/$name.o"
	done
}
