"""Which options of docker, docker run, docker build and compose take a value: data, from their own --help.

Docker 28.5, buildx 0.29, compose 2.40. An option that is not here is read as a switch, which can only mislead about one that
is newer than this list and is written with a blank before its value.
"""

from __future__ import annotations

from typing import Final

from launcher.cli.words import options

DOCKER: Final = options("-c --context --config -H --host -l --log-level --tlscacert --tlscert --tlskey")

RUN: Final = options(
    "--add-host --annotation -a --attach --blkio-weight --blkio-weight-device --cap-add --cap-drop --cgroup-parent --cgroupns",
    "--cidfile --cpu-count --cpu-percent --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime -c --cpu-shares --cpus",
    "--cpuset-cpus --cpuset-mems --detach-keys --device --device-cgroup-rule --device-read-bps --device-read-iops",
    "--device-write-bps --device-write-iops --dns --dns-opt --dns-option --dns-search --domainname --entrypoint -e --env",
    "--env-file --expose --gpus --group-add --health-cmd --health-interval --health-retries --health-start-interval",
    "--health-start-period --health-timeout -h --hostname --io-maxbandwidth --io-maxiops --ip --ip6 --ipc --isolation",
    "--kernel-memory -l --label --label-file --link --link-local-ip --log-driver --log-opt --mac-address -m --memory",
    "--memory-reservation --memory-swap --memory-swappiness --mount --name --net --network --net-alias --network-alias",
    "--oom-score-adj --pid --pids-limit --platform -p --publish --pull --restart --runtime --security-opt --shm-size",
    "--stop-signal --stop-timeout --storage-opt --sysctl --tmpfs --ulimit -u --user --userns --uts -v --volume --volume-driver",
    "--volumes-from -w --workdir",
)

BUILD: Final = options(
    "--add-host --allow --annotation --attest --build-arg --build-context --builder --cache-from --cache-to --call",
    "--cgroup-parent --cpu-period --cpu-quota -c --cpu-shares --cpuset-cpus --cpuset-mems -f --file --iidfile --isolation",
    "--label -m --memory --memory-swap --metadata-file --network --no-cache-filter -o --output --platform --policy --progress",
    "--provenance --root --sbom --secret --security-opt --server-config --shm-size --ssh -t --tag --target --ulimit",
)

BUILDX: Final = options("--builder")

COMPOSE: Final = options(
    "--ansi --env-file -f --file --parallel --profile --progress --project-directory -p --project-name --workdir"
)

# The words that lead to a build, behind docker's own options.
BUILDS: Final = (("build",), ("image", "build"), ("builder", "build"), ("buildx", "build"), ("buildx", "b"))
