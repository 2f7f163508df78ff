#!/bin/sh
# Install or upgrade the Nexus Core agent where there is no dpkg, with nothing fetched:
#   ./install.sh                        install, or upgrade to this version
#   ./install.sh --uninstall [--purge]  remove it; with --purge settings and state, too
# Afterwards everything lies as the Debian package puts it.
set -eu
bundle=$(cd "${0%/*}" && pwd)
# shellcheck source=packaging/layout.sh
. "$bundle/files/usr/lib/nexus-agent/layout.sh"
version=@VERSION@
minor=@MINOR@
python=/usr/bin/python$minor

fail() {
  say "$*" >&2
  exit 1
}

# What the bundle lays out, without /, settings left out.
laid_out() { (cd "$bundle/files" && find . -type f ! -path './etc/*' | sed 's,^\./,,'); }

check_machine() {
  [ "$(id -u)" = 0 ] || fail "run it as root"
  if dpkg-query -W nexus-core-agent >/dev/null 2>&1; then
    fail "the Debian package nexus-core-agent is installed: use apt or dpkg"
  fi
  [ -x "$python" ] || fail "this bundle needs $python"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no modules venv and ensurepip: install them first (often python3-venv)"
}

# Build versions/$version beside and put it in place whole. pip runs in a Python of its own and
# takes only wheels with the hashes that the bundle lists.
install_version() {
  place=$home/versions/$version
  site=lib/python$minor/site-packages
  rm -rf "$place" "$place.new" "$home/pip"
  mkdir -p "$place.new/bin"
  "$python" -m venv "$home/pip"
  "$home/pip/bin/python" -m pip install --isolated --quiet --disable-pip-version-check \
    --no-index --no-deps --no-compile --require-hashes --find-links "$bundle/wheels" \
    -r "$bundle/requirements.txt" --target "$place.new/$site"
  rm -rf "$home/pip" "$place.new/$site/bin"
  ln -s "$python" "$place.new/bin/python"
  printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$minor" \
    >"$place.new/pyvenv.cfg"
  "$python" -m compileall -q -s "$place.new" -p "$place" --invalidation-mode unchecked-hash \
    "$place.new/$site"
  chmod -R go=rX "$place.new"
  mv "$place.new" "$place"
}

install_files() {
  laid_out | while read -r file; do
    mkdir -p "$root/${file%/*}"
    cp "$bundle/files/$file" "$root/$file.nexus-new"
    mv "$root/$file.nexus-new" "$root/$file"
  done
}

add_users() {
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers "$root/usr/lib/sysusers.d/nexus-agent.conf"
  else
    getent group nexus-admin >/dev/null || groupadd --system nexus-admin
    getent passwd nexus >/dev/null || useradd --system --user-group --home-dir /var/lib/nexus \
      --no-create-home --shell /usr/sbin/nologin nexus
    if getent group dialout >/dev/null; then usermod --append --groups dialout nexus; fi
  fi
  install -d -m 750 -o nexus -g nexus "$root/var/lib/nexus"
  install -d -m 755 "$upgrade"
}

# Settings that are there stay as they are.
add_settings() {
  [ ! -e "$root/etc/nexus/agent.toml" ] || return 0
  install -d -m 750 -g nexus "$root/etc/nexus"
  install -m 640 -g nexus "$bundle/files/etc/nexus/agent.toml" "$root/etc/nexus/agent.toml"
  systemctl enable --quiet "$agent" "$clock" "$trial_timer"
}

remove_others() {
  for folder in "$home/versions/"*; do
    [ "$folder" = "$home/versions/$version" ] || rm -rf "$folder"
  done
}

install_or_upgrade() {
  check_machine
  keep_current
  install_version
  install_files
  add_users
  add_settings
  if [ -L "$home/current" ]; then
    take_over "$version"
  else
    switch_to "versions/$version"
    first_start
  fi
  remove_others
  say "$version is installed"
}

uninstall() {
  [ "$(id -u)" = 0 ] || fail "run it as root"
  if booted; then systemctl stop "$trial_timer" "$agent" "$clock" || true; fi
  systemctl disable --quiet "$trial_timer" "$agent" "$clock" 2>/dev/null || true
  laid_out | while read -r file; do rm -f "$root/$file"; done
  rm -rf "$home" "$upgrade/trial" "$root/usr/share/nexus-agent" "$root/usr/share/doc/nexus-core-agent"
  if booted; then systemctl daemon-reload; fi
  if [ "${1:-}" = --purge ]; then
    rm -rf "$root/var/lib/nexus" "$upgrade" "$root/etc/nexus"
    say "removed, with settings and state; the user nexus stays"
  else
    say "removed; /etc/nexus and /var/lib/nexus stay"
  fi
}

case ${1:-} in
  "") install_or_upgrade ;;
  --uninstall) uninstall "${2:-}" ;;
  *) fail "unknown option $1; see the first lines of this file" ;;
esac
