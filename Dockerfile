# inception-rcnn on a CPU. Pictures and results are below the folder that is mounted at /work:
#
#   docker build --tag inception-rcnn .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" inception-rcnn detect photos/ --output out
#
# Compiled kernels are kept in /cache; with --volume inception-rcnn:/cache from one run to the next.

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml ./
# What it needs, apart from the package itself: a layer that stays when only the code changes.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    print(*project['dependencies'], *project['optional-dependencies']['detect'], sep='\n')" > /requirements.txt
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
RUN --mount=type=bind,from=build,source=/requirements.txt,target=/requirements.txt \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir --no-compile --requirement /requirements.txt --constraint /constraints.txt
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-compile --no-deps /wheels/*.whl \
    && useradd --no-log-init --uid 1000 user \
    && mkdir --mode 1777 /cache
# For any --user, also one without a home folder.
ENV INCEPTION_RCNN_CACHE=/cache PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /work
ENTRYPOINT ["inception-rcnn"]
CMD ["--help"]
