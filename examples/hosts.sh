#!/bin/sh
# Several hosts on one machine, to try out what needs several: hosts.sh 3 [COMMAND...]
#
# Hosts a, b, c, ... are network namespaces with a host name, an address and an ssh server each, joined by a switch.
# COMMAND (by default a shell) runs on host a, from which `ssh b` works without a password. Files are the machine's.
# It needs Linux, root, iproute2, util-linux and OpenSSH. Nothing has to be removed: all of it is in namespaces of
# COMMAND's own, which end with it, as do all processes that it has started.
set -eu

if [ "${1:-}" != inside ]; then
    exec unshare --mount --net --pid --fork --kill-child --mount-proc sh "$0" inside "$@"
fi
shift
count=$1
shift
names=$(echo a b c d e f g h | cut -d ' ' -f "1-$count")

own=/run/sshd # becomes a file system in memory, which only these processes see
mkdir -p "$own" /run/netns ~/.ssh
mount -t tmpfs -o mode=755 none "$own"
mkdir "$own/ssh" "$own/netns" "$own/tmp"
mount --bind "$own/netns" /run/netns
mount --bind "$own/ssh" ~/.ssh
chmod 700 ~/.ssh
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys
printf 'StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n' > ~/.ssh/config

# An mpirun names files by its process's number, which here may also be that of an earlier one, or of one outside.
export TMPDIR="$own/tmp"

echo '127.0.0.1 localhost' > "$own/hosts"
number=0
for name in $names; do
    number=$((number + 1))
    echo "10.9.0.$number $name" >> "$own/hosts"
done
mount --bind "$own/hosts" /etc/hosts

ip link set lo up
ip link add br0 type bridge
ip link set br0 up
number=0
for name in $names; do
    number=$((number + 1))
    ip netns add "$name"
    ip link add "port$number" type veth peer name eth0 netns "$name"
    ip link set "port$number" master br0 up
    ip -n "$name" addr add "10.9.0.$number/24" dev eth0
    ip -n "$name" link set lo up
    ip -n "$name" link set eth0 up
    ip netns exec "$name" unshare --uts sh -c 'echo "$1" > /proc/sys/kernel/hostname; exec /usr/sbin/sshd -D \
        -f /dev/null -h ~/.ssh/id_ed25519 -o SetEnv=TMPDIR="$TMPDIR" -o StrictModes=no -o PidFile=none \
        -o MaxStartups=100 -o LogLevel=ERROR' sh "$name" &
done
for name in $names; do
    until ip netns exec a ssh -o ConnectTimeout=1 "$name" true 2> /dev/null; do sleep 0.1; done
done

# The hosts share this machine's cores: a rank that waits is to leave its core to one that computes.
export OMPI_MCA_mpi_yield_when_idle=1
ip netns exec a unshare --uts sh -c 'echo a > /proc/sys/kernel/hostname; exec "$@"' sh "${@:-sh}"
