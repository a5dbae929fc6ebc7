#!/bin/sh
# Installs nginx and Caddy for tests/e2e from the system's packages. Doing so again changes nothing.
# Where it can't, it says so and leaves the decision to the tests: they skip, or fail where CI is set.
set -u

missing=""
for name in nginx caddy; do
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$name" >/dev/null 2>&1 || missing="$missing $name"
done
if [ -z "$missing" ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Not installed:$missing, and there is no apt-get: install them, or their settings are not tried." >&2
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Not installed: run 'sudo apt-get install$missing', or their settings are not tried." >&2
    exit 0
fi

# the packages would start both as services
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >&2; then
    echo "apt-get could not install:$missing: their settings are not tried." >&2
fi
