# How one version of the agent takes over from another. The maintainer scripts bring this file with
# them (build.py puts it in), for they run when the package's files may not be there; the offline
# installer and the helpers `trial` and `failed` read it.
#
#   versions/<version>/  what the package manager brings and takes away
#   kept/<version>/      hard links of the version before: what a roll-back goes to
#   current              -> versions/<version> or kept/<version>: what runs
#
# All of it, and the folder of the marker, is writable by root only: no link in it is anybody else's.
# shellcheck shell=sh

# A test puts a folder before every path.
root=${NEXUS_ROOT:-}
home=$root/usr/lib/nexus-agent
upgrade=$root/var/lib/nexus-upgrade
agent=nexus-agent.service
clock=nexus-clock.service
trial_timer=nexus-agent-trial.timer

say() { echo "nexus-core-agent: $*"; }

# In a chroot, an image build or a container without systemd nothing is started or stopped.
booted() { [ -d "$root/run/systemd/system" ]; }

show() { systemctl show --property="$1" --value "$agent"; }

# A unit that crashes or waits to be started again is meant to run; one that a person stopped is not.
meant_to_run() { booted && [ "$(show ActiveState)" != inactive ]; }

# Past failures count no longer, neither for the start limit nor for the trial.
forget_failures() { systemctl reset-failed "$agent" 2>/dev/null || true; }

# Point `current` to $1 in one step that survives a power cut.
switch_to() {
  sync -f "$home" &&
    ln -sfn "$1" "$home/current.new" &&
    mv -T "$home/current.new" "$home/current" &&
    sync "$home"
}

# Write standard input to the file $1 in $upgrade, whole or not at all.
write_file() {
  mkdir -p "$upgrade" &&
    cat >"$upgrade/$1.new" &&
    sync "$upgrade/$1.new" &&
    mv -T "$upgrade/$1.new" "$upgrade/$1" &&
    sync "$upgrade"
}

# Sets $new and $before from the marker; true while the one is what runs and the other is there.
on_trial() {
  [ -f "$upgrade/trial" ] || return 1
  { read -r new && read -r before; } <"$upgrade/trial" || return 1
  [ "$(readlink "$home/current")" = "versions/$new" ] && [ -d "$home/kept/$before" ]
}

end_trial() {
  rm -f "$upgrade/trial"
  if booted; then systemctl stop --no-block "$trial_timer"; fi
}

# Before the files of a new version come: keep what runs, and run what is kept. From here on the
# package manager may take versions/ away, and whatever stops it finds an agent that starts.
keep_current() {
  running=$(readlink "$home/current") || return 0
  if on_trial; then
    switch_to "kept/$before" # what has not passed its trial is nothing to go back to
  elif [ "$running" != "${running#versions/}" ] && [ -d "$home/$running" ]; then
    rm -rf "$home/kept"
    mkdir "$home/kept"
    cp -al "$home/$running" "$home/kept/"
    switch_to "kept/${running#versions/}"
  fi
}

# After the files of version $1 came: it takes over, on trial if there is one to go back to. The
# agent is stopped in between, so that no process ever imports from two versions.
take_over() {
  kept=$(readlink "$home/current")
  rm -f "$upgrade/trial"
  if booted; then systemctl daemon-reload; fi
  if ! meant_to_run; then
    switch_to "versions/$1"
    return
  fi
  if [ "$kept" != "${kept#kept/}" ]; then
    printf '%s\n%s\n' "$1" "${kept#kept/}" | write_file trial
  fi
  systemctl stop "$agent" "$clock"
  switch_to "versions/$1"
  if [ -f "$upgrade/trial" ]; then systemctl restart "$trial_timer"; fi
  forget_failures
  systemctl start "$agent" ||
    say "$1 did not get ready; it is tried again, see: journalctl -u nexus-agent"
}

# The first time here: start the agent if it knows its broker.
first_start() {
  if grep -q '^[^#]*://broker\.example[:/"]' "$root/etc/nexus/agent.toml"; then
    say "name your broker in /etc/nexus/agent.toml, then: systemctl start nexus-agent"
  elif booted; then
    systemctl daemon-reload
    systemctl start "$agent" ||
      say "the agent did not get ready, see: journalctl -u nexus-agent"
  fi
}

# Go back from the version on trial, because of $1, and leave the agent word of it. The report is
# prepared first and put in place last: a power cut in between is mended by tell_roll_back. A full
# disk costs the report, not the way back.
roll_back() {
  if booted; then systemctl stop "$agent" "$clock"; fi
  rm -f "$upgrade/rollback.next"
  printf '{"id": "%s", "from": "%s", "to": "%s", "reason": "%s", "at": "%s"}\n' \
    "$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')" "$new" "$before" "$1" \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" | write_file rollback.next ||
    say "the report of the way back could not be written"
  if switch_to "kept/$before"; then
    tell_roll_back
    say "went back from $new to $before: $1"
  else
    say "cannot go back from $new to $before: $home/current could not be switched"
  fi
  end_trial
}

# Put the report in place, if there is one and the version before really runs.
tell_roll_back() {
  [ "$(readlink "$home/current")" = "kept/$before" ] || return 0
  [ ! -f "$upgrade/rollback.next" ] || mv -T "$upgrade/rollback.next" "$upgrade/rollback.json"
}
