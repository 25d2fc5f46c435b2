# syntax=docker/dockerfile:1
# The web app in a container:
#   docker build -t soundprompt . && docker run --rm -p 7860:7860 soundprompt
# For an NVIDIA GPU: build with --build-arg DEVICE=cuda and run with --gpus all.
FROM python:3.11.14-slim-bookworm

ARG DEVICE=cpu
# Index of torch's CPU build; the build on PyPI includes CUDA.
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu

# Hugging Face Spaces expect user 1000 as well.
RUN useradd --create-home --uid 1000 user \
    && mkdir -p /app/models /app/runs /home/user/.cache/huggingface \
    && chown -R user:user /app /home/user
WORKDIR /app
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/home/user/.local/bin:$PATH

# Large and rarely changed, therefore a separate layer.
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    case "$DEVICE" in \
        cpu) pip install --extra-index-url "$CPU_INDEX" -r requirements.txt ;; \
        cuda) pip install -r requirements.txt ;; \
        *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac

USER 1000
# Trains the demo encoder, which takes minutes, so that the app can generate at the first start.
# The code of the app is copied afterwards: changing it does not retrain the encoder.
COPY --chown=user soundprompt/__init__.py soundprompt/__init__.py
COPY --chown=user soundprompt/mini soundprompt/mini
COPY --chown=user align align
RUN python -m align.train --num_images 0 --num_sheet_samples 0 && rm -rf runs/align/mini/checkpoint-*
COPY --chown=user diffuse diffuse
COPY --chown=user soundprompt soundprompt
COPY --chown=user app.py .

# Reachable from outside the container.
ENV GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    GRADIO_ANALYTICS_ENABLED=False
EXPOSE 7860
VOLUME ["/app/models", "/home/user/.cache/huggingface"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['GRADIO_SERVER_PORT'], timeout=4)"]
# Gradio shuts down cleanly on an interrupt.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "app.py"]
