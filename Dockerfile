# One image for web, worker, beat, Flower, the sandbox and the migrations; the command tells them apart.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
# Without its own pip, which nothing in the image needs.
RUN python -m venv --without-pip /venv
# What an image can do without: "pdf parquet otel", or some of them.
ARG EXTRAS=""
# Before the code, so that a change of the code does not install them again.
COPY requirements.txt .
COPY requirements-*.txt ./
RUN for extra in ${EXTRAS}; do echo "--requirement requirements-${extra}.txt"; done > extras.txt \
    && pip --python /venv install --no-cache-dir --disable-pip-version-check \
        --requirement requirements.txt --requirement extras.txt

FROM ${PYTHON_IMAGE}
# A new volume takes over the owner of the folder it is mounted on.
RUN useradd --uid 10001 --no-create-home shop \
    && install --directory --owner=shop --group=shop /data /data/media /data/sandbox
COPY --from=packages /venv /venv
# In a container the loopback address cannot be reached from outside, hence WEB_BIND.
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DEBUG=false \
    VAR_DIR=/data \
    STATIC_ROOT=/srv/static \
    WEB_BIND=0.0.0.0:8000
WORKDIR /app
COPY . .
# The settings want a key; this one ends with this line and signs nothing. Compiled now, since the file system is read-only later.
RUN SECRET_KEY=only-while-the-image-is-built python manage.py collectstatic --noinput --ignore "redoc.*" \
    && python -m compileall -q .
# By number, so that Kubernetes can tell that it is not root.
USER 10001
EXPOSE 8000
# Of the web, as is the command; docker-compose.yml has one for each of the others.
HEALTHCHECK --interval=10s --timeout=10s --retries=3 --start-period=30s \
    CMD ["python", "-S", "-c", "from urllib.request import urlopen; urlopen(\"http://127.0.0.1:8000/healthz/live\", timeout=5)"]
CMD ["gunicorn", "myproject.wsgi", "--config", "deploy/gunicorn.conf.py"]
