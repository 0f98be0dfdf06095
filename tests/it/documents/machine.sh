# Makes a machine for the commands of the documents, and stays as its first process. The rest is in machine.rs.
#
#   machine.sh ROOT PROGRAM SOURCES bare|installed|serving
#
# Runs in namespaces of its own. ROOT has root/sessile.toml alone, and becomes the root: programs are those of this machine, which
# cannot be changed; /etc, /run, /root and /usr/local are new. Stand-ins are only what a real machine has
# and this one has not: sudo, apt for the package alone, and a service manager for its unit alone.
set -euo pipefail
root=$1 program=$2 sources=$3 state=$4

ip link set lo up

# Shows a folder of this machine there, and lets nothing change it.
show() {
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
}
for folder in /bin /sbin /lib /lib32 /lib64; do
    if [ -L "$folder" ]; then
        cp --no-dereference "$folder" "$root$folder"
    elif [ -d "$folder" ]; then
        show "$folder" "$folder"
    fi
done
for folder in /usr/*; do
    case $folder in
        /usr/bin | /usr/local) ;;
        *) show "$folder" "$folder" ;;
    esac
done
mkdir -p "$root"/{dev,etc,opt/package,proc,root,run,tmp,usr/bin,usr/local/bin,var/log}
# A package puts its program among those of the machine.
show /usr/bin /opt/bin
(cd /usr/bin && printf "/opt/bin/%s\0" * | xargs -0 ln -s -t "$root/usr/bin")
mount -t proc proc "$root/proc"
for device in null zero urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
echo 127.0.0.1 localhost >"$root/etc/hosts"
echo root:x:0:0::/root:/bin/sh >"$root/etc/passwd"

# What a package or a download has. Binds, because the program is large.
for file in opt/package/sessile root/sessile-0.1.0-linux; do
    touch "$root/$file"
    mount --bind "$program" "$root/$file"
done
touch "$root/root/sessile_0.1.0_amd64.deb"
cp "$sources/packaging/sessile.toml" "$sources/config/sessile.service" "$root/opt/package"

cat >"$root/usr/local/bin/sudo" <<'END'
#!/bin/sh
exec "$@"
END
cat >"$root/usr/local/bin/apt" <<'END'
#!/bin/sh -e
[ "$1" = install ] && [ -f "$2" ] || exit 100
ln -s /opt/package/sessile /usr/bin/sessile
mkdir -p /etc/sessile
cp /opt/package/sessile.toml /etc/sessile/
systemctl start sessile
END
# ExecStart and ExecReload are those of the unit.
cat >"$root/usr/local/bin/systemctl" <<'END'
#!/bin/sh -e
[ "$2" = sessile ]
command=$(sed -n "s,^Exec$1=,,Ip" /opt/package/sessile.service)
[ "$command" ]
case $1 in
    start)
        $command </dev/null >/var/log/sessile 2>&1 &
        until sessile status >/dev/null 2>&1; do
            kill -0 $! 2>/dev/null || { cat /var/log/sessile >&2; exit 1; }
            sleep 0.02
        done ;;
    reload) $command ;;
    *) exit 64 ;;
esac
END
chmod +x "$root"/usr/local/bin/*

# The files that the commands name; sessile.toml is there. The backends are those of the installed configuration.
chroot "$root" /bin/bash -euc '
    cd
    /opt/package/sessile certs dev --dir /tmp/certs >/dev/null
    cp /tmp/certs/dev.pem site.pem
    cp /tmp/certs/dev-key.pem site-key.pem
    cp sessile.toml old.toml
    printf "%s\n" "[[pool.backend]]" "name = \"new\"" "address = \"127.0.0.1:9002\"" | cat old.toml - >new.toml
    printf "203.0.113.%d\n" {1..20} >clients.txt
    /opt/package/sessile demo --backends --config /opt/package/sessile.toml </dev/null >/dev/null &
    until : </dev/tcp/127.0.0.1/9001; do sleep 0.02; done 2>/dev/null
    [ "$0" != bare ] || exit 0
    ln -s /opt/package/sessile sessile
    ln -s /opt/package/sessile /usr/bin/sessile
    ln -s /opt/package/sessile /usr/local/bin/sessile-previous
    mkdir /etc/sessile
    cp sessile.toml /etc/sessile
    [ "$0" = installed ] || systemctl start sessile
' "$state"

echo ready
sleep infinity &
wait
