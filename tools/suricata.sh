#!/usr/bin/env bash
# Installs Suricata from the backports of this Debian, with the mirror and the keyring that apt uses already. Where that cannot be
# done it says so and ends with status 0: score cards then say "not run" for Suricata.
set -u
command -v suricata >/dev/null && exit 0
sorry() {
    echo "Suricata is not installed: $*" >&2
    exit 0
}
[ "$(id -u)" = 0 ] || sorry "only root installs packages"
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk -v name="$codename" '$2 == name {print $1; exit}')
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || keyring=
[ -n "${uri:-}" ] || sorry "apt has no source for $codename"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
mkdir -p "$folder/lists/partial"
for suite in "$codename" "$codename-backports"; do
    echo "deb ${keyring:+[signed-by=$keyring] }$uri $suite main"
done >"$folder/sources.list"
private=(-o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$folder/lists")
apt-get "${private[@]}" update -qq || sorry "the mirror has no $codename-backports"
DEBIAN_FRONTEND=noninteractive apt-get "${private[@]}" -t "$codename-backports" install -y -qq --no-install-recommends suricata >/dev/null ||
    sorry "the package of $codename-backports could not be installed"
