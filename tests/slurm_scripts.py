"""A Slurm of shell scripts, which runs its jobs on this machine."""

import os
from pathlib import Path

# sbatch, srun, squeue and scancel: jobs are processes, and files in a folder say how they are.
SLURM = r"""#!/bin/bash
d="$FAKE_SLURM"
case "${0##*/}" in
sbatch)
  if grep -q partition=missing "$1"; then echo "sbatch: error: invalid partition specified: missing" >&2; exit 1; fi
  id=$(( $(cat "$d/last" 2>/dev/null || echo 100) + 1 )); echo $id > "$d/last"
  cp "$1" "$d/$id.script"; env -0 > "$d/$id.env"
  export SLURM_JOB_ID=$id SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID
  last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$1")
  for SLURM_ARRAY_TASK_ID in $(seq 0 $last); do
    export FAKE_JOB="$d/${id}_$SLURM_ARRAY_TASK_ID"
    sed -n 's/^#SBATCH --job-name=//p' "$1" > "$FAKE_JOB.name"; echo RUNNING > "$FAKE_JOB.state"
    export FAKE_SCRIPT="$d/$id.script"
    setsid bash -c 'bash "$FAKE_SCRIPT"; grep -q RUNNING "$FAKE_JOB.state" && echo COMPLETED > "$FAKE_JOB.state"' \
      < /dev/null > /dev/null 2>&1 &
  done
  echo "Submitted batch job $id" ;;
srun)
  grep -q RUNNING "$FAKE_JOB.state" || exit 1
  while [ "${1#--}" != "$1" ]; do [ "$1" = --output ] && { out="$2"; shift; }; shift; done
  out="${out//%A/$SLURM_ARRAY_JOB_ID}"; out="${out//%a/$SLURM_ARRAY_TASK_ID}"
  echo $$ > "$FAKE_JOB.step"; exec "$@" >> "${out//%t/0}" 2>&1 ;;
squeue)
  for word; do case "$word" in --name=*) name="${word#--name=}" ;; esac; done
  for state in "$d"/*.state; do
    job="${state%.state}"
    [ -e "$state" ] && [ "$(cat "$job.name")" = "$name" ] && echo "${job##*/}|$(cat "$state")|None"
  done; true ;;
scancel)
  for job; do
    grep -q RUNNING "$d/$job.state" && echo CANCELLED > "$d/$job.state"
    [ -e "$d/$job.step" ] && kill -TERM "$(cat "$d/$job.step")" 2> /dev/null
  done; true ;;
esac
"""


def install(folder: Path) -> dict[str, str]:
    """Puts the commands into `folder / "bin"`, and files that say how jobs are into `folder / "queue"`. Returns the
    variables of whoever is to find them.
    """
    place, queue = folder / "bin", folder / "queue"
    place.mkdir()
    (place / "sbatch").write_text(SLURM)
    (place / "sbatch").chmod(0o755)
    for name in ("srun", "squeue", "scancel"):
        (place / name).symlink_to("sbatch")
    queue.mkdir()
    return {"FAKE_SLURM": str(queue), "PATH": f"{place}:{os.environ['PATH']}"}
