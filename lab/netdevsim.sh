#!/bin/sh
# Builds netdevsim.ko for one Debian kernel: SOURCE_DEB HEADERS_DEB CONFIG RELEASE ARCH FOLDER.
#
# Only as much of the kernel's source is unpacked as configuring it and building one module take
# (a quarter of a gigabyte instead of two), and only one folder is compiled.
set -eu
source_deb=$1 headers_deb=$2 config=$3 release=$4 arch=$5 folder=$6
mkdir -p "$folder/tree"
cd "$folder"

tarball=$(dpkg-deb --fsys-tarfile "$source_deb" | tar -t | grep '/linux-source-[^/]*\.tar\.xz$')
top=$(basename "$tarball" .tar.xz)

# Left out: sources that nothing here compiles. Every Kconfig and Makefile stays, so that the
# configuration comes out as it went in.
set -- --anchored
for foreign in alpha arc arm arm64 csky hexagon loongarch m68k microblaze mips nios2 openrisc \
    parisc powerpc riscv s390 sh sparc um x86 xtensa; do
    [ "$foreign" = "$arch" ] || set -- "$@" "--exclude=$top/arch/$foreign/*.*"
done
for unused in 'drivers/[!n]*/*.[chS]' 'drivers/n[!e]*/*.[chS]' 'drivers/net/[!n]*/*.[chS]' \
    'drivers/*.rs' 'sound/*.[chS]' 'fs/*.[chS]' 'rust/*.rs' 'samples/*.c' \
    'Documentation/*.rst' 'Documentation/*.yaml' 'Documentation/*.txt' \
    'tools/testing/*' 'tools/perf/*' 'tools/power/*'; do
    set -- "$@" "--exclude=$top/$unused"
done
dpkg-deb --fsys-tarfile "$source_deb" | tar -xO "$tarball" | xz -T0 -dc |
    tar -x -C tree --strip-components=1 "$@"
dpkg-deb --fsys-tarfile "$headers_deb" |
    tar -xO "./usr/src/linux-headers-$release/Module.symvers" >tree/Module.symvers

# BTF options change the layout of struct module, so they have to stay, and they stay only where
# pahole is as new as in Debian's build. It would not be called for anything but its version: a
# module gets BTF only beside a vmlinux.
version=$(sed -n 's/^CONFIG_PAHOLE_VERSION=//p' "$config")
printf '#!/bin/sh\necho v%s.%s\n' "${version%??}" "${version#?}" >pahole
chmod +x pahole

cd tree
cp "$config" .config
# The keys are files of Debian's build; a module needs none.
scripts/config --module NETDEVSIM --set-str SYSTEM_TRUSTED_KEYS ''
set -- -s "-j$(nproc)" "PAHOLE=$folder/pahole"
make "$@" olddefconfig
# The kernel takes a module only if it was built for exactly its release string.
set -- "$@" "LOCALVERSION=${release#"$(make -s kernelversion)"}"
make "$@" modules_prepare
make "$@" M=drivers/net/netdevsim modules
cp drivers/net/netdevsim/netdevsim.ko ..
