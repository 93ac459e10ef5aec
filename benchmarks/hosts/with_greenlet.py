"""greenlet: stacks are switched in two threads at once, while a third computes."""

import threading

import greenlet

TURNS = 150000


def player(other, score):
    for turn in range(TURNS):
        score[0] += sum(range(turn % 20))
        other.parent.switch()


def play(results):
    score = [0]
    main = greenlet.getcurrent()
    players = [greenlet.greenlet(player) for _ in range(3)]
    for one in players:
        one.parent = main
        one.switch(one, score)
    while any(not one.dead for one in players):
        for one in players:
            if not one.dead:
                one.switch()
    results.append(score[0])


def compute(ended, results):
    while not ended.wait(0.001):
        results.add(sum(range(10000)))


scores, sums, ended = [], set(), threading.Event()
helper = threading.Thread(target=compute, args=(ended, sums))
helper.start()
threads = [threading.Thread(target=play, args=(scores,)) for _ in range(2)]
for thread in threads:
    thread.start()
play(scores)
for thread in threads:
    thread.join()
ended.set()
helper.join()
print(scores, sums)
