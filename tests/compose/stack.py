"""The composed stack: containers, their state, and commands in them."""

import json
import os
import subprocess
import time

PROJECT = os.environ["COMPOSE_PROJECT_NAME"]
COMPOSE = os.environ["COMPOSE_COMMAND"].split()


def run(*command, check=True, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def compose(*arguments):
    return run(*COMPOSE, *arguments)


def containers(service=None):
    """The ids of the running containers."""
    filters = [f"label=com.docker.compose.project={PROJECT}"]
    if service:
        filters.append(f"label=com.docker.compose.service={service}")
    return run("docker", "ps", "--quiet", *(f"--filter={each}" for each in filters)).split()


def inspect(container):
    return json.loads(run("docker", "inspect", container))[0]


def inside(container, *command, check=True):
    """The output of a command in the container, as the container's user."""
    return run("docker", "exec", container, *command, check=check)


def wait_until_healthy(expected, seconds=180):
    """Waits until the expected number of containers per service runs, all of them healthy."""
    until = time.monotonic() + seconds
    while True:
        state = {}
        for container in containers():
            about = inspect(container)
            service = about["Config"]["Labels"]["com.docker.compose.service"]
            health = about["State"].get("Health", {}).get("Status", "no health check")
            state.setdefault(service, []).append(health)
        if state == {service: ["healthy"] * number for service, number in expected.items()}:
            return
        if time.monotonic() > until:
            raise AssertionError(f"not all are healthy: {state}\n{compose('logs', '--tail=40')}")
        time.sleep(1)
