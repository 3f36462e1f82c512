# Makes an image of the system that it runs on: takes away what must differ between machines, what was left over
# from building, and what may be secret. Runs as root, by any POSIX shell, in a chroot or on a booted machine.
# Running it twice changes nothing more. `seal.verify` reads what this leaves.
set -eu
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022

fail() { echo "seal: $*" >&2; exit 1; }

# What only loses its name stays in the blocks of the disk, so it is overwritten first. Large files are not: their
# blocks are given back whole when the layer is frozen, and read as zeros from then on.
wipe() { find "$@" -xdev -type f -links 1 -size -32768 -exec shred -n 0 -z -f -u {} + 2>/dev/null || true; }
wipe_files() { for file; do if [ -f "$file" ] && [ ! -L "$file" ]; then wipe "$file"; fi; rm -f "$file"; done; }
empty_folder() {
  for folder; do
    [ -d "$folder" ] && [ ! -L "$folder" ] || continue
    wipe "$folder"
    find "$folder" -xdev -mindepth 1 -delete 2>/dev/null || true
  done
}
is_mounted() { grep -q " $1 " /proc/self/mountinfo 2>/dev/null; }
unit_exists() {
  for place in /etc /usr/lib /lib; do [ -e "$place/systemd/system/$1" ] && return 0; done
  return 1
}

homes() {
  { cut -d: -f6 /etc/passwd; printf '%s\n' / /root /etc/skel /home/* /var/lib/*; } | sed 's:/*$::' | sort -u
}

clear_homes() {
  homes | while IFS= read -r home; do
    [ -d "$home/" ] || continue
    for file in "$home"/.ssh/authorized_keys* "$home"/.*_history "$home"/.*_history-* "$home/.history" \
      "$home/.lesshst" "$home/.viminfo" "$home/.wget-hsts" "$home/.rnd" "$home/.Xauthority"; do
      case $file in *'*'*) continue ;; esac
      wipe_files "$file"
    done
    case $home in '' | /etc/skel | /usr* | /bin | /sbin | /dev | /proc | /sys | /run* | /var/run*) continue ;; esac
    empty_folder "$home/.ansible" "$home/.cache" "$home/.config/pip" "$home/.local/share/mc"
    rm -rf "$home/.ansible" "$home/.cache"
  done
}

clear_identity() {
  if [ -e /etc/machine-id ] || [ -d /usr/lib/systemd/system ] || [ -d /lib/systemd/system ]; then
    # Empty, not "uninitialized": that would be a first boot to systemd, which then enables services by its presets.
    : >/etc/machine-id
    chmod 0444 /etc/machine-id
  fi
  if [ -e /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
    rm -f /var/lib/dbus/machine-id
    ln -s /etc/machine-id /var/lib/dbus/machine-id
  fi
  is_mounted /etc/hostname || echo localhost >/etc/hostname
  wipe_files /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/urandom/random-seed \
    /var/lib/misc/random-seed /boot/loader/random-seed /boot/efi/loader/random-seed /efi/loader/random-seed \
    /etc/nvme/hostid /etc/nvme/hostnqn /var/lib/NetworkManager/secret_key
  if [ -e /etc/iscsi/initiatorname.iscsi ]; then echo GenerateName=yes >/etc/iscsi/initiatorname.iscsi; fi
}

# A unit at $1, from standard input, that the target $2 wants.
add_unit() {
  mkdir -p "/etc/systemd/system/$2.wants"
  cat >"/etc/systemd/system/$1"
  ln -sf "../$1" "/etc/systemd/system/$2.wants/$1"
}

clear_host_keys() {
  for key in /etc/ssh/ssh_host_*; do wipe_files "$key"; done
  if command -v sshd >/dev/null && command -v systemctl >/dev/null && ! unit_exists sshd-keygen@.service; then
    # cloud-init makes host keys too, but only where it finds a data source; without any, sshd would not start.
    add_unit ingot-ssh-keys.service multi-user.target <<'UNIT'
[Unit]
Description=Make this machine's SSH host keys
Documentation=man:ssh-keygen(1)
After=cloud-init.service cloud-init-network.service
Before=ssh.service sshd.service
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
  fi
  # Debian's stand-in TLS certificate is made on installation, so all machines of the image would share its key.
  if [ -e /etc/ssl/private/ssl-cert-snakeoil.key ] && command -v make-ssl-cert >/dev/null; then
    if [ -L /etc/ssl/certs/ssl-cert-snakeoil.pem ]; then rm -f /etc/ssl/certs/ssl-cert-snakeoil.pem; fi
    wipe_files /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem
    find /etc/ssl/certs -lname ssl-cert-snakeoil.pem -delete
    add_unit ingot-snakeoil.service basic.target <<'UNIT'
[Unit]
Description=Make this machine's own stand-in TLS certificate
DefaultDependencies=no
After=local-fs.target systemd-remount-fs.service systemd-random-seed.service
Before=basic.target shutdown.target
Conflicts=shutdown.target
ConditionPathExists=!/etc/ssl/private/ssl-cert-snakeoil.key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/make-ssl-cert generate-default-snakeoil --force-overwrite

[Install]
WantedBy=basic.target
UNIT
  fi
}

clear_logs() {
  empty_folder /var/log/journal /var/log/installer /var/log/anaconda /var/crash /var/lib/systemd/coredump \
    /var/spool/abrt
  find /var/log -xdev -type f \( -name '*.gz' -o -name '*.xz' -o -name '*.bz2' -o -name '*.zst' -o -name '*.old' \
    -o -name '*.[0-9]' -o -name '*-20[0-9][0-9][0-9][0-9][0-9][0-9]' \) -exec shred -n 0 -z -f -u {} + || true
  find /var/log -xdev -type f -size +0 -size -32768 -exec shred -n 0 -z -f {} + || true
  find /var/log -xdev -type f -size +0 -exec truncate -s 0 {} +
  for folder in /var/mail /var/spool/mail; do [ ! -d "$folder/" ] || wipe "$folder/"; done
}

clear_network() {
  for folder in /var/lib/dhcp /var/lib/dhclient /var/lib/dhcpcd; do empty_folder "$folder"; done
  for file in /var/lib/NetworkManager/*.lease /var/lib/NetworkManager/timestamps \
    /var/lib/NetworkManager/seen-bssids /etc/udev/rules.d/70-persistent-net.rules \
    /etc/udev/rules.d/70-persistent-cd.rules; do
    wipe_files "$file"
  done
  for file in /etc/sysconfig/network-scripts/ifcfg-*; do
    [ ! -f "$file" ] || sed -i -e '/^HWADDR=/d' -e '/^UUID=/d' "$file"
  done
  # The build's own resolv.conf may be mounted over the image's; it goes with the machine.
  if ! is_mounted /etc/resolv.conf && [ ! -L /etc/resolv.conf ]; then
    if [ -e /etc/systemd/system/dbus-org.freedesktop.resolve1.service ]; then
      ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
    else
      : >/etc/resolv.conf
    fi
  fi
}

clear_cloud_init() {
  if [ -e /var/lib/cloud/instance ] || [ -L /var/lib/cloud/instance ]; then
    # It ran during the build, and wrote these for the build's machine.
    rm -f /etc/netplan/50-cloud-init.yaml /etc/network/interfaces.d/50-cloud-init* \
      /etc/sudoers.d/90-cloud-init-users /etc/NetworkManager/system-connections/cloud-init-*.nmconnection \
      /etc/ssh/sshd_config.d/50-cloud-init.conf
  fi
  for name in instance instances data sem; do
    if [ -L "/var/lib/cloud/$name" ]; then rm -f "/var/lib/cloud/$name"; fi
    empty_folder "/var/lib/cloud/$name"
    rm -rf "/var/lib/cloud/$name"
  done
}

clear_packages() {
  for folder in /var/lib/apt/lists /var/cache/apt /var/cache/dnf /var/cache/yum /var/cache/libdnf5; do
    [ -d "$folder" ] || continue
    find "$folder" -xdev -type f -delete 2>/dev/null || true
  done
  find /var/lib/dpkg /var/cache/debconf -xdev -maxdepth 1 -type f -name '*-old' -delete 2>/dev/null || true
  rm -f /etc/apt/apt.conf.d/*ingot* /etc/dpkg/dpkg.cfg.d/*ingot* /etc/cloud/cloud.cfg.d/*ingot-build* /etc/.pwd.lock
  if ! is_mounted /usr/sbin/policy-rc.d && grep -qs ingot /usr/sbin/policy-rc.d; then rm -f /usr/sbin/policy-rc.d; fi
}

newest_kernel() {
  for folder in /lib/modules/*/; do
    version=$(basename "$folder")
    if [ -e "/boot/vmlinuz-$version" ]; then echo "$version"; fi
  done | sort -V | tail -n 1
}

# Whether anything below the other paths became what it is after the file $1 was written. Packages carry the times
# of their own making, so the time of the inode's change is asked for.
is_stale() {
  made=$1
  shift
  [ -s "$made" ] || return 0
  [ -n "$(find "$@" -newercm "$made" -print -quit 2>/dev/null)" ]
}

refresh_initramfs() {
  inputs="/lib/modules/$1 /etc/modprobe.d /etc/modules /etc/modules-load.d /etc/udev/rules.d /etc/crypttab"
  if command -v update-initramfs >/dev/null; then
    # shellcheck disable=SC2086 # no path of these has a space
    is_stale "/boot/initrd.img-$1" $inputs /etc/initramfs-tools /usr/share/initramfs-tools /lib/firmware || return 0
    echo "making the initramfs of $1 anew"
    how=-u
    [ -e "/boot/initrd.img-$1" ] || how=-c
    update-initramfs "$how" -k "$1" || fail "update-initramfs could not make the initramfs of $1"
  elif command -v dracut >/dev/null; then
    # shellcheck disable=SC2086
    is_stale "/boot/initramfs-$1.img" $inputs /etc/dracut.conf /etc/dracut.conf.d /usr/lib/dracut /lib/firmware ||
      return 0
    echo "making the initramfs of $1 anew"
    dracut --force "/boot/initramfs-$1.img" "$1" || fail "dracut could not make the initramfs of $1"
  fi
}

root_source() { awk '$1 !~ /^#/ && $2 == "/" { print $1; exit }' /etc/fstab 2>/dev/null; }

# Without udev, GRUB's own program writes the name that the disk has in this very build.
name_root_lastingly() {
  root=$(root_source)
  case $root in UUID=* | LABEL=* | PARTUUID=*) ;; *) return 0 ;; esac
  if grep -Eqs 'root=/dev/[a-z0-9]+' "$1"; then sed -i -E "s#root=/dev/[a-zA-Z0-9/-]+#root=$root#g" "$1"; fi
}

refresh_bootloader() {
  for config in /boot/grub/grub.cfg /boot/grub2/grub.cfg; do [ ! -f "$config" ] || break; done
  [ -f "$config" ] || return 0
  for entry in /boot/loader/entries/*"$1".conf; do [ ! -e "$entry" ] || return 0; done
  if grep -q "vmlinuz-$1" "$config" && ! is_stale "$config" /etc/default/grub /etc/default/grub.d; then
    name_root_lastingly "$config"
    return 0
  fi
  echo "making $config anew"
  for program in grub-mkconfig grub2-mkconfig; do
    if command -v "$program" >/dev/null && "$program" -o "$config.new" && grep -q "vmlinuz-$1" "$config.new"; then
      name_root_lastingly "$config.new"
      mv "$config.new" "$config"
      return 0
    fi
  done
  rm -f "$config.new"
  # GRUB's program is not in the image, or cannot see its disk from here: the entries that there are get the new kernel.
  old=$(sed -n -E 's#^[[:space:]]*linux(16|efi)?[[:space:]].*vmlinuz-([^[:space:]]+).*#\2#p' "$config" | head -n 1)
  [ -n "$old" ] || fail "$config has no entry that could be changed to boot the kernel $1"
  sed -i "s#$(printf '%s' "$old" | sed 's/[.]/\\./g')#$1#g" "$config"
  name_root_lastingly "$config"
}

kernel=$(newest_kernel)
if [ -n "$kernel" ]; then
  refresh_initramfs "$kernel"
  refresh_bootloader "$kernel"
fi
clear_packages
clear_cloud_init
clear_network
clear_logs
clear_homes
clear_identity
clear_host_keys
empty_folder /tmp /var/tmp
