"""What peers.py wrote, in a few rows: for each arm, pass, way and number of tokens the geometric mean over the shapes of its time
over moeprof's in the same case, the least and the most of them, and moeprof's own share of dense.

  python3 kernels/lab/peers_table.py FILE.json...
"""
import collections, json, math, sys


def geomean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def cases(files):
    """(shape, tokens, routing, what, way) -> {arm: row}; a case that was timed twice counts as it was the last time."""
    found = collections.defaultdict(dict)
    for name in files:
        with open(name) as f:
            for row in map(json.loads, f):
                found[row['shape'], row['tokens'], row['routing'], row['what'], row['way']][row['arm']] = row
    return found


def main():
    ratios, shares = collections.defaultdict(list), collections.defaultdict(list)
    for (shape, tokens, routing, what, way), arms in cases(sys.argv[1:]).items():
        own = arms.get('moeprof')
        if not own: continue
        seconds = own['seconds']['median']
        shares[routing, tokens, what, way].append(own['flop'] / seconds / own['dense_flop_per_second'])
        for arm, row in arms.items():
            if arm != 'moeprof': ratios[arm, routing, tokens, what, way].append((row['seconds']['median'] / seconds, shape))
    print(f'{"arm":12s} {"routing":8s} {"tokens":>6s} {"pass":8s} {"way":7s} {"shapes":>6s}  geomean  least (where)             most (where)')
    for key, values in sorted(ratios.items()):
        (low, low_at), (high, high_at) = min(values), max(values)
        print(f'{key[0]:12s} {key[1]:8s} {key[2]:6d} {key[3]:8s} {key[4]:7s} {len(values):6d}  {geomean([v for v, _ in values]):5.2f} x  '
              f'{low:5.2f} ({low_at:12s})       {high:5.2f} ({high_at})')
    for key, values in sorted(shares.items()):
        print(f'moeprof of dense, {key[0]}, {key[1]} tokens, {key[2]}, {key[3]}: {geomean(values):.3f} ({min(values):.3f}..{max(values):.3f}, {len(values)} shapes)')


if __name__ == '__main__': main()
