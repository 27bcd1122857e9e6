"""A real, small training program for the real node: a multilayer perceptron learns two interleaved spirals.

Only the standard library, one process. It does what Purser asks of any program:
 - resumes from the checkpoint at PURSER_CHECKPOINT_URI (s3://bucket/prefix on AWS_ENDPOINT_URL) if there is one,
 - saves one every CHECKPOINT_EVERY epochs and on SIGTERM, before the grace is over,
 - tells its progress to PURSER_PROGRESS_URL with the projected token, or exposes it as a metric on METRICS_PORT.
The same seed gives the same model bit for bit, however often it was interrupted: the checkpoint holds the weights, the
epoch and the state of the random generator, and JSON keeps Python's floats exactly.
"""
import hashlib, http.server, json, math, os, random, signal, ssl, sys, threading, urllib.error, urllib.parse, urllib.request

EPOCHS = int(os.environ.get("EPOCHS", "400"))
CHECKPOINT_EVERY = int(os.environ.get("CHECKPOINT_EVERY", "20"))
HIDDEN, RATE = 12, 0.05
stopping = False
shown = 0.0


def stop(signum, frame):
    global stopping
    stopping = True


def object_url(name):
    uri = urllib.parse.urlparse(os.environ["PURSER_CHECKPOINT_URI"])
    return f"{os.environ['AWS_ENDPOINT_URL']}/{uri.netloc}/{uri.path.strip('/')}/{name}"


def read_object(name):
    try:
        with urllib.request.urlopen(object_url(name), timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def write_object(name, value):
    body = json.dumps(value).encode()
    urllib.request.urlopen(urllib.request.Request(object_url(name), data=body, method="PUT"), timeout=10).close()


def tell(fraction, checkpoint=None):
    """Progress is worth telling, but never worth failing for."""
    global shown
    shown = fraction
    if "METRICS_PORT" in os.environ:
        return
    url = os.environ.get("PURSER_PROGRESS_URL")
    if not url:
        return
    body = {"fraction": fraction}
    if checkpoint is not None:
        body["checkpoint"] = {"fraction": checkpoint, "uri": os.environ["PURSER_CHECKPOINT_URI"]}
    try:
        with open(os.environ.get("PURSER_TOKEN_FILE", "/var/run/purser/token")) as file:
            token = file.read().strip()
        request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST",
                                         headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=5, context=ssl.create_default_context() if url.startswith("https") else None).close()
    except Exception as error:  # noqa: BLE001
        print(f"could not tell progress: {error}", flush=True)


class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"# TYPE training_progress gauge\ntraining_progress {shown}\n".encode())

    def log_message(self, *_):
        pass


def forward(model, x):
    hidden = [math.tanh(b + w[0] * x[0] + w[1] * x[1]) for w, b in zip(model["w1"], model["b1"])]
    return hidden, 1 / (1 + math.exp(-(model["b2"] + sum(w * h for w, h in zip(model["w2"], hidden)))))


def learn(model, x, y):
    hidden, guess = forward(model, x)
    error = guess - y
    for i, h in enumerate(hidden):
        slope = error * model["w2"][i] * (1 - h * h)
        model["w2"][i] -= RATE * error * h
        model["w1"][i][0] -= RATE * slope * x[0]
        model["w1"][i][1] -= RATE * slope * x[1]
        model["b1"][i] -= RATE * slope
    model["b2"] -= RATE * error


def fresh_state(generator):
    model = {"w1": [[generator.uniform(-1, 1), generator.uniform(-1, 1)] for _ in range(HIDDEN)], "b1": [0.0] * HIDDEN,
             "w2": [generator.uniform(-1, 1) for _ in range(HIDDEN)], "b2": 0.0}
    return {"epoch": 0, "model": model, "random": None}


def save(state, generator):
    version, internal, gauss = generator.getstate()
    write_object("checkpoint.json", {**state, "random": [version, list(internal), gauss]})
    tell(state["epoch"] / EPOCHS, checkpoint=state["epoch"] / EPOCHS)


def main():
    signal.signal(signal.SIGTERM, stop)
    if "METRICS_PORT" in os.environ:
        server = http.server.ThreadingHTTPServer(("", int(os.environ["METRICS_PORT"])), Metrics)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(os.environ.get("DATA", os.path.join(os.path.dirname(os.path.abspath(__file__)), "spirals.json"))) as file:
        data = json.load(file)
    generator = random.Random(7)
    state = read_object("checkpoint.json")
    if state is None:
        state = fresh_state(generator)
        print("starts from nothing", flush=True)
    else:
        version, internal, gauss = state["random"]
        generator.setstate((version, tuple(internal), gauss))
        print(f"resumes at epoch {state['epoch']} of {EPOCHS}", flush=True)
    while state["epoch"] < EPOCHS:
        order = list(range(len(data)))
        generator.shuffle(order)
        for index in order:
            learn(state["model"], data[index][:2], data[index][2])
        state["epoch"] += 1
        if stopping:
            save(state, generator)
            print(f"was told to stop; saved epoch {state['epoch']}", flush=True)
            sys.exit(143)
        if state["epoch"] % CHECKPOINT_EVERY == 0:
            save(state, generator)
    right = sum((forward(state["model"], row[:2])[1] > 0.5) == (row[2] == 1) for row in data)
    digest = hashlib.sha256(json.dumps(state["model"], sort_keys=True).encode()).hexdigest()
    write_object("model.json", {"model": state["model"], "sha256": digest, "accuracy": right / len(data)})
    tell(1.0, checkpoint=1.0)
    print(f"done: accuracy {right / len(data):.3f}, model {digest}", flush=True)


main()
