#!/bin/sh
# Installs Chromium for tests/e2e from the system's packages. Doing so again changes nothing.
# Where it can't, it says so and leaves the decision to the tests: they skip, or fail where CI is set.
set -u

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null 2>&1; then
        exit 0
    fi
done

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Chromium is not installed and there is no apt-get: install it, or the browser tests do not run." >&2
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Chromium is not installed: run 'sudo apt-get install chromium', or the browser tests do not run." >&2
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends chromium; } >&2; then
    echo "apt-get could not install Chromium: the browser tests do not run." >&2
fi
