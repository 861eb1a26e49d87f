"""Self-play: a team learns a zero-sum game in text against past versions of itself.

`run` is what ``maporl train --self-play.game`` does. It plays by `games`, draws opponents from
`opponent_pool`, and rates them by `ratings`; the learning is that of the schemes.
"""
