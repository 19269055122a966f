#!/usr/bin/env python3
"""large.py [--quick] [--sizes 0.1B,0.4B,...] [--tokens 0,8192,...] [--keep] [--kills COUNT] [--table]

Fusion of models with random weights, from 0.1B to 7B parameters.

For each row a teacher is written (make_large), fused by the tool, and its memory sampled; then both go.  Rows stand in
bench/results/large.csv as they come, so that a run that was broken off goes on, within a fusion at its last layer; from them
come large.md, large.svg, and nodes.md, what many such machines would need of a network (--table: these alone, nothing is run);
`make -C bench large UPDATE=1` puts both tables into README.md.  Share of peak is operations over
time and over what the cores do in a large product, where an operation of float64 counts as two: by CPU time, which other
programs on the machine disturb little, and by wall time.

--kills COUNT measures nothing: it fuses once to the end, then again with so many SIGKILLs at random moments, each time by the
same command, and compares the bytes of both students; by any number of --tokens."""
import csv, filecmp, json, math, os, random, shutil, struct, subprocess, sys, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD, RESULTS = os.path.join(ROOT, 'bench/build/large'), os.path.join(ROOT, 'bench/results')
#        teacher: dim, layers, heads, ffn                student
SHAPES = {'0.1B': ((768, 12, 12, 2048), (512, 12, 8, 1376)), '0.4B': ((1024, 24, 16, 2816), (640, 24, 10, 1728)),
          '1.3B': ((2048, 24, 16, 5504), (1280, 24, 10, 3456)), '7B': ((4096, 32, 32, 11008), (2560, 32, 20, 6912)),
          '7B to 1.3B': ((4096, 32, 32, 11008), (2048, 24, 16, 5504))}
ROWS = [(size, method, tokens) for size in SHAPES for method, tokens in (('select', 0), ('lemon', 8192))] + [('7B to 1.3B', 'lemon', 32768)]
COLUMNS = ['size', 'method', 'tokens', 'teacher_params', 'student_params', 'wall_s', 'cpu_s', 'flops', 'forecast_flops', 'flops64',
           'peak_anon_bytes', 'forecast_memory', 'core_gflops', 'share_cpu', 'share_wall']
TABLE = os.path.join(RESULTS, 'large.csv')


def shape_flags(shape):
    return ['--dim', shape[0], '--layers', shape[1], '--heads', shape[2], '--kv-heads', shape[2], '--ffn', shape[3]]


def run(*args, **more):
    return subprocess.run([str(a) for a in args], cwd=ROOT, check=True, stdout=subprocess.PIPE, **more).stdout.decode()


def write_ids(path):
    """Ids with a few frequent ones and many rare ones, and with repetitions, as text has them."""
    rng, ids = random.Random(1), []
    for _ in range(40000):
        if ids and rng.random() < 0.3:
            ids.append(ids[-rng.randint(1, min(len(ids), 50))])
        else:
            ids.append(min(31999, 2 + int(32000 ** rng.random())))
    with open(path, 'wb') as file:
        file.write(struct.pack('<%dH' % len(ids), *ids))


def sample(pid, most):
    """The most anonymous memory that the process had, looked at four times a second."""
    while True:
        try:
            with open('/proc/%d/status' % pid) as file:
                anon = [line for line in file if line.startswith('RssAnon')]
        except OSError:
            return
        if not anon:
            return
        most[0] = max(most[0], 1024 * int(anon[0].split()[1]))
        time.sleep(0.25)


def prepare(size):
    """The folder of a row's teacher, written if it is not there."""
    folder = os.path.join(BUILD, size.split()[0])
    if not os.path.exists(os.path.join(folder, 'config.json')):
        run('bench/build/make_large', folder, *shape_flags(SHAPES[size][0]), '--vocab', 32000)
    return folder


def start(folder, out, student, method, tokens):
    flags = ['--data', os.path.join(BUILD, 'ids.u16'), '--tokens', tokens, '--learn', 0] if tokens else []
    return subprocess.Popen([str(a) for a in ['examples/lemon', 'fuse', folder, out, '--method', method, '--json', '--quiet',
                                              *shape_flags(student), *flags]], cwd=ROOT, stdout=subprocess.PIPE)


def measure(size, method, tokens):
    student, folder, out = SHAPES[size][1], prepare(size), os.path.join(BUILD, 'student.lemon')
    plan = json.loads(run('bench/build/large_plan', folder, student[0], student[1], student[2], student[2], student[3],
                          tokens, method))
    began, most = time.time(), [0]
    child = start(folder, out, student, method, tokens)
    watcher = threading.Thread(target=sample, args=(child.pid, most))
    watcher.start()
    text = child.stdout.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    wall, cpu = time.time() - began, usage.ru_utime + usage.ru_stime
    watcher.join()
    if status:
        sys.exit('large: %s: the fusion ended with status %d; the same command goes on' % (size, status))
    result = json.loads(text.splitlines()[-1])
    os.remove(out)
    work = result['flops'] + plan['flops64']
    return dict(zip(COLUMNS, [size, method, tokens, result['teacher_params'], result['student_params'], round(wall, 1),
                              round(cpu, 1), result['flops'], plan['flops'], plan['flops64'], most[0], int(plan['memory']),
                              round(plan['core'] / 1e9, 1), round(work / cpu / plan['core'], 3),
                              round(work / wall / plan['core'] / plan['cores'], 3)]))


def kills(size, method, tokens, count):
    """Kills a fusion at random moments of the time that it took undisturbed; the bytes must be the same."""
    student, folder, rng = SHAPES[size][1], prepare(size), random.Random(1)
    outs = [os.path.join(BUILD, 'student%d.lemon' % i) for i in range(2)]
    began = time.time()
    if start(folder, outs[0], student, method, tokens).wait():
        sys.exit('large: %s: the fusion failed' % size)
    wall = time.time() - began
    for i in range(count):
        child, after = start(folder, outs[1], student, method, tokens), rng.uniform(0, 2 * wall / (count + 1))
        time.sleep(after)
        child.kill()
        print('%s: kill %d of %d %s' % (size, i + 1, count, 'after %.0f s' % after if child.wait() else 'came too late'), flush=True)
    same = not start(folder, outs[1], student, method, tokens).wait() and filecmp.cmp(*outs, shallow=False)
    print('%s: after %d kills the student has %s' % (size, count, 'the same bytes' if same else 'OTHER BYTES'), flush=True)
    return same


def rows_so_far():
    if not os.path.exists(TABLE):
        return []
    with open(TABLE) as file:
        return list(csv.DictReader(file))


def table(rows):
    lines = ['| teacher | method | tokens | student | wall, s | CPU, s | TFLOP | forecast | peak RssAnon, MB | GFLOP/s a core | share of that (CPU) | (wall) |',
             '|' + '---|' * 12]
    for r in rows:
        flops, forecast = float(r['flops']), float(r['forecast_flops'])
        lines.append('| %s | %s | %s | %.2fB | %s | %s | %.1f | %s | %.0f | %s | %s | %s |' % (
            r['size'].split()[0], r['method'], r['tokens'], float(r['student_params']) / 1e9, r['wall_s'], r['cpu_s'], flops / 1e12,
            '%.2f' % (forecast / flops) if flops else '', float(r['peak_anon_bytes']) / 1e6,
            r['core_gflops'], r['share_cpu'] if flops else '', r['share_wall'] if flops else ''))
    return '\n'.join(lines) + '\n'


def figure(rows):
    """CPU time and memory of solved fusion against the teacher's size, both axes logarithmic."""
    points = [(float(r['teacher_params']), float(r['cpu_s']), float(r['peak_anon_bytes']) / 1e6) for r in rows
              if r['method'] == 'lemon' and r['tokens'] == '8192' and 'to' not in r['size']]
    if not points:
        return ''
    x = lambda p: 80 + 500 * (math.log10(p) - 7.8) / 2.2
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" width="640" height="340" font-family="sans-serif" font-size="12">',
             '<rect width="640" height="340" fill="white"/><text x="320" y="330" text-anchor="middle">parameters of the teacher</text>']
    for name, column, color in (('CPU, s', 1, '#1f5fa8'), ('peak RssAnon, MB', 2, '#b5482a')):
        y = lambda v: 290 - 250 * (math.log10(max(v, 1)) - 1) / 3.2
        path = ' '.join('%.1f,%.1f' % (x(p[0]), y(p[column])) for p in points)
        parts.append('<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>' % (color, path))
        for p in points:
            parts.append('<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/><text x="%.1f" y="%.1f" text-anchor="middle">%.0f</text>'
                         % (x(p[0]), y(p[column]), color, x(p[0]), y(p[column]) - 8, p[column]))
        parts.append('<text x="90" y="%d" fill="%s">%s</text>' % (30 + 16 * column, color, name))
    for power in (8, 9, 10):
        parts.append('<text x="%.1f" y="310" text-anchor="middle">1e%d</text>' % (x(10 ** power), power))
    return '\n'.join(parts + ['</svg>']) + '\n'


def size(number):
    return '%.1f GB' % (number / 1e9)


def nodes(rows):
    """What training in parallel asks of a network, by arithmetic: nodes of two cores, which are as fast as those that were measured.
    A step sums P floats, of which a ring sends 2 (n-1)/n from each node, and computes 6 P operations for each token."""
    if not rows:
        return ''
    speeds = sorted(float(r['core_gflops']) for r in rows)
    node, tokens = 2e9 * speeds[len(speeds) // 2], 16384
    lines = ['With %d tokens for each node and step, on nodes of two cores of %.0f GFLOP/s each, the median of the table above:' % (tokens, node / 2e9), '',
             '| P | seconds of computing a step | bytes from each node: 8 nodes | 64 | 1024 | network for a tenth of the time, 1024 nodes |',
             '|' + '---|' * 6]
    for p in sorted({float(r['student_params']) for r in rows if r['method'] == 'lemon'}):
        seconds = 6 * p * tokens / node
        ring = [8 * p * (n - 1) / n for n in (8, 64, 1024)]
        lines.append('| %.2fe9 | %.0f | %s | %s | %s | %.1f Gbit/s |' % (p / 1e9, seconds, *map(size, ring), 8 * ring[2] / (seconds / 10) / 1e9))
    (dt, layers_t, _, nt), (ds, layers, _, ns) = SHAPES['7B']
    reads = 2 * (ds * ds + ds * dt)                                  # S, and R of all targets, for attention and the neurons
    writes = ds * ds + ds * dt + ds * ds + ns * ns + ns * nt + ns * ds
    lines += ['', 'Calibrating 7B to 2.7B sums some %s for each layer, %.0f GB in all.' % (size(8 * (reads + writes)), 8e-9 * (reads + writes) * layers)]
    return '\n'.join(lines) + '\n'


def asked(flag, value):
    """Whether a row's value is among those of a flag; without the flag all are."""
    return flag not in sys.argv or str(value) in sys.argv[sys.argv.index(flag) + 1].split(',')


def write_tables(rows):
    for name, text in (('large.md', table(rows)), ('nodes.md', nodes(rows)), ('large.svg', figure(rows))):
        with open(os.path.join(RESULTS, name), 'w') as file:
            file.write(text)


def main():
    os.makedirs(BUILD, exist_ok=True)
    os.makedirs(RESULTS, exist_ok=True)
    write_ids(os.path.join(BUILD, 'ids.u16'))
    quick = '--quick' in sys.argv
    rows = [] if quick else rows_so_far()
    if '--table' in sys.argv:
        write_tables(rows)
        return
    todo = [('0.4B', 'select', 0), ('0.4B', 'lemon', 1024)] if quick else ROWS
    if '--kills' in sys.argv:
        tokens = int(sys.argv[sys.argv.index('--tokens') + 1]) if '--tokens' in sys.argv else 8192
        count = int(sys.argv[sys.argv.index('--kills') + 1])
        same = [kills(size, 'lemon', tokens, count) for size in SHAPES if asked('--sizes', size)]
        sys.exit(0 if all(same) else 1)
    todo = [r for r in todo if asked('--sizes', r[0]) and asked('--tokens', r[2])]
    for size, method, tokens in todo:
        if any((r['size'], r['method'], int(r['tokens'])) == (size, method, tokens) for r in rows):
            continue
        rows.append({k: str(v) for k, v in measure(size, method, tokens).items()})
        print(table(rows[-1:]), end='', flush=True)
        if not quick:
            rows.sort(key=lambda r: ROWS.index((r['size'], r['method'], int(r['tokens']))))
            with open(TABLE, 'w', newline='') as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
            write_tables(rows)
    if '--keep' not in sys.argv:
        shutil.rmtree(BUILD)


main()
