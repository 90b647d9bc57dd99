"""Write a project of your own: this repository without its shop, and with the app that stands beside this file.

`make new DIR=../mine NAME=mine` runs it. The files are copied as they are; what names the shop is cut, as listed here.
"""

import keyword
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

STARTER = Path(__file__).resolve().parent
HERE = STARTER.parent
COPIED = re.compile(
    r"durable/|myproject/(?!demo\.py|api/|management/commands/(reference|seed_demo))|static/(?!lab\.).*\.(css|js|svg|ico)$"
    r"|templates/(?!lab/|orders/|reports/|accounts/|admin/confirm|dashboard\.html|_staff\.html|_office|_account_menu)"
    r"|deploy/(systemd|redis)/|deploy/[^/]+$|\.ci/audit|\.github/workflows/ci\.yml|\.(docker|git)ignore|\.editorconfig|\.env\.example"
    r"|(Dockerfile|LICENSE|Makefile|Procfile|docker-compose\.yml|flowerconfig\.py|manage\.py|pyproject\.toml|pytest\.ini)$"
    r"|\.pre-commit-config\.yaml|requirements(?!-p).*|tests/(__init__|environment|ports|servers)\.py$"
    r"|tests/operations/(__init__|test_durable)\.py$"
)
APP = "inquiries"

# Paragraphs to be cut: what stands between blank lines, and matches.
PARAGRAPHS = {
    "Makefile": r"^(attack|looks|screenshots|lighthouse|brokers|faults|guards|lab|bench|docs|new|BROKERS)\b",
    "docker-compose.yml": r"^  sandbox:\n    <<",
    "pyproject.toml": r'name = "(Inside (accounts|orders|reports|lab)|The sandbox)',
    ".env.example": r"^# --- (Sandbox |The JSON side)",
    "myproject/settings.py": r"^# --- The JSON side|^# How often the scripts",
}
# Lines to be cut.
LINES = {
    "Makefile": r"no-print-directory docs",
    ".gitignore": r"docs/|make docs|/lab/",
    "Procfile": r"^sandbox:",
    "docker-compose.yml": r"^  sandbox:$|^# (As a demo|puts the sandbox|In production)",
    "myproject/settings.py": r'"orders\.|^# Of the page that describes the API|^NINJA = ',
    "myproject/urls.py": r"\bapi\b",
    "myproject/variables.py": r"^LAB = |^# Experiments that",
    "pyproject.toml": r'^"(reports|benchmarks|lab|starter)/|^# Made of the names|^# The sandbox is|^src = ',
    "pytest.ini": r"^    (proves|faults|properties|attack|lab|looks|every_\w+):",
    "tests/environment.py": r"(REPORT|IMPORT)_LEASE|STRIPE_|SANDBOX_S|WAREHOUSE_|CRM_",
    ".github/workflows/ci.yml": r"# (docs/reference|It installs a browser)",
    "requirements.in": r"^(django-ninja|stripe|aiosmtpd|Pillow|iso4217|babel|# Money)",
    "requirements-dev.in": r"^(hypothesis|playwright|axe|XlsxWriter|rustpy|moto|flask|hadolint|kubernetes-v|check-json)"
    r"|^(beautifulsoup4|sphinx|furo|myst|openpyxl|pypdf|types-openpyxl|time-machine|django-migration)"
    r"|^# (Open|Finds what|The other|An S3|Validates|Reads the [Dl]|The doc)",
}
# Variables that only the shop reads, with the comments above them.
VARIABLES = r"API_RATE|STRIPE_|CRM_|WAREHOUSE_|REPORT|IMPORT_|SANDBOX_(?!URL|API)|SMTP_PORT|CURRENCY|LAB|EXTRAS"
# What is written otherwise.
OTHERWISE = {
    "Makefile": [
        (r"(?<=operations) attack.*docs format new", " check format"),
        (r"Prove what docs/operations/ says.*", "Prove durable/ alone, and in a project that Django has just made"),
    ],
    "myproject/settings.py": [(r"(?<=^APPS = ).*", f'["{APP}"]'), (" LAB,", ""), (r', NINJA / "\w+"', "")],
    # A route for which there is no task does not pass the checks.
    "myproject/queues.py": [(r'"sync", ', ""), (r', \("generate", "import"\)', ""), (r'"clear"\)', '"clear",)')],
    "pyproject.toml": [
        (r"(?<=^files = )\[.*|(?<=^root_packages = )\[.*", f'["durable", "myproject", "{APP}"]'),
        (r"Apps: .*(?=\")", "The app upon the plumbing"),
        (r'"lab", "reports", "orders", "accounts"', f'"{APP}"'),
        (r', "benchmarks", "lab", "sandbox", "starter"', ""),
        ("; the lab shows what not to do", ""),
        (r"api \| demo \| try_it", "try_it"),
    ],
    # The project's own has no history, and nobody to tell of it.
    "myproject/management/commands/prepare.py": [("SANDBOX_SECONDS = .*", ""), (", wait=SANDBOX_SECONDS", "")],
    "pytest.ini": [
        ("not faults and not operations and not attack and not lab and not looks", "not operations"),
        (r"docs/operations/", "durable/ alone"),
    ],
    "Dockerfile": [('"pdf parquet otel", or some of them', '"otel"'), (' --ignore "redoc[^"]*"', "")],
    "docker-compose.yml": [("EXTRAS-pdf parquet", "EXTRAS-")],
    "tests/environment.py": [("ORDER_LEASE_SECONDS", "INQUIRY_LEASE_SECONDS")],
    ".env.example": [
        (r"hold an order: .*\n# ORDER_LEASE_SECONDS=30", "hold an inquiry.\n# INQUIRY_LEASE_SECONDS=60"),
        (r"(# INQUIRY_LEASE.*\n)", r"\1# How long the work of an inquiry takes, in seconds.\n# INQUIRY_SECONDS=2\n"),
    ],
    ".github/workflows/ci.yml": [("sudo --preserve-env=PATH,CI bash", "bash")],
}
# Pages of the documentation, which stays here.
PAGES = (
    r"(; see| \(|, and change over as)? ?docs/operations/[\w-]+\.md(\. tests/\S+ runs with it| says| lists all\.|\))?"
)
# The queue of what somebody waits for.
QUEUE = "urgent"


def new(folder: Path, name: str) -> int:
    """Write the project; return how many lines of the copied files were cut."""
    listed = subprocess.run(["git", "ls-files"], cwd=HERE, capture_output=True, text=True, check=True).stdout.split()
    cut = 0
    for path in filter(COPIED.match, listed):
        if path.endswith(".ico"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(HERE / path, folder / path)
            continue
        text = (HERE / path).read_text()
        ours = tailored(path, text)
        cut += text.count("\n") - ours.count("\n")
        write(folder, path, ours, name)
    for path in listed:
        if path.startswith("starter/") and path != "starter/new.py":
            write(folder, path.removeprefix("starter/"), (HERE / path).read_text(), name)
    for program in (folder / ".ci").iterdir():
        program.chmod(0o755)
    # With another name, lines are longer or shorter, and imports in another order.
    for task in (["check", "--fix", "--select", "I"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *task, "--quiet", "."], cwd=folder, check=True)
    return cut


def tailored(path: str, text: str) -> str:
    if path in PARAGRAPHS:
        kept = [part for part in text.split("\n\n") if not re.search(PARAGRAPHS[path], part, re.MULTILINE)]
        text = "\n\n".join(kept).rstrip("\n") + "\n"
    if path in LINES:
        text = "".join(line for line in text.splitlines(keepends=True) if not re.search(LINES[path], line))
    for pattern, other in OTHERWISE.get(path, []):
        text = re.sub(pattern, other, text, flags=re.MULTILINE)
    if path == ".env.example":
        text = re.sub(rf"(^# (?![A-Z_]+=).*\n)*^# ({VARIABLES}).*=.*\n", "", text, flags=re.MULTILINE)
    if re.fullmatch(r"requirements(-dev)?\.txt", path):
        text = without_unneeded(text, LINES[path.replace(".txt", ".in")])
    return text


def without_unneeded(pinned: str, pattern: str) -> str:
    """Drop the pinned packages that match, and those that only they need."""
    entries = re.findall(r"^([\w.-]+)(.*==.*\n(?:    #.*\n)*)", pinned, re.MULTILINE)
    gone: set[str] = set()
    while True:
        needed = {name: set(re.findall(r"(?:via|#  ) ([\w.-]+)", rest)) - {"-r", "-c"} for name, rest in entries}
        more = {n for n, by in needed.items() if re.match(pattern, n, re.IGNORECASE) or (by and by <= gone)} - gone
        if not more:
            return "".join(name + rest for name, rest in entries if name not in gone)
        gone |= more


def write(folder: Path, path: str, text: str, name: str) -> None:
    target = folder / named(path, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(named(text, name))


def named(text: str, name: str) -> str:
    """Call the project by its own name: the package, the site, its files, its queue."""
    text = re.sub(PAGES, "", text)
    text = re.sub(r"\b(the|The|a|an|this|whole|new|of|earlier|another) shop\b", r"\1 site", text)
    text = text.replace("Lantern & Loom", name.title()).replace("Lantern &amp; Loom", name.title())
    text = text.replace("lantern-loom", name).replace("myproject", name).replace("Shop", "Site").replace("shop", name)
    return re.sub(r"\b(?<!\.)orders(?=[^\w]*)\b", QUEUE, text).replace("ORDERS_", f"{QUEUE.upper()}_")


def main(folder: str, name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name in {APP, "durable", "tests"} or find_spec(name):
        sys.exit(f"NAME={name} cannot be the name of a package, or is one already: choose another.")
    target = Path(folder).resolve()
    if target.exists() and any(target.iterdir()):
        sys.exit(f"{target} is not empty.")
    cut = new(target, name)
    print(f"{target} is a project of its own; {cut} lines of the shop were cut. Go on with: cd {folder} && make run")


if __name__ == "__main__":
    main(*sys.argv[1:])
