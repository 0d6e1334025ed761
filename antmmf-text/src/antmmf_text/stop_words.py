"""Words that are frequent everywhere and say nothing of a picture: articles, pronouns, auxiliaries, numbers."""

from __future__ import annotations

NAME = "antmmf-1"
"""Changes with the list, because tables say which one they were made with."""

_ENGLISH = """
about above across after again against all almost along already also although always am among an and another any
anyone anything are around as at away back background backgrounds be because been before behind being below beneath
beside besides between beyond both but by ca can cannot could did do does doing done down during each eight either
else etc even ever every everyone everything except few five for four from get gets getting go goes going gon got
had has have having he her here hers herself him himself his how however if in inside instead into is it its itself
just let lets like ll many may maybe me might mine more most much must my myself na near nearly neither nine no
nobody none nor not nothing now of off often oh okay on once one only onto or other others our ours ourselves out
outside over own per perhaps quite rather re really same seven sha shall she should since six so some somebody
someone something somewhere still such ta ten than that the their theirs them themselves then there these they this
those though three through throughout till to together too toward towards two under underneath until up upon us ve
very via was we well were what whatever when where whether which while who whole whom whose why will with within
without wo would yeah yes yet you your yours yourself yourselves
"""

_CHINESE = """
的 了 着 过 地 得 是 有 没 没有 在 和 与 及 或 或者 而 而且 并 并且 但 但是 不 不是 也 都 就
才 又 还 再 很 太 最 更 非常 这 那 这个 那个 这些 那些 这里 那里 这样 那样 哪 什么 怎么 为什么 谁
我 你 您 他 她 它 我们 你们 他们 她们 它们 咱们 自己 大家 把 被 让 给 对 向 从 到 由 以 为 为了
于 跟 同 用 比 按 往 之 其 所 等 等等 吗 呢 吧 啊 呀 嘛 哦 嗯 个 一 一个 一些 一下 一样 因为
所以 如果 虽然 然后 以及 以后 以前 之后 之前 时候 现在 正在 已经 可以 能 能够 会 要 想 应该 可能
需要 来 去 里 上 下 中 里面 上面 下面 背景 二 两 三 四 五 六 七 八 九 十
"""

STOP_WORDS = frozenset((_ENGLISH + _CHINESE).split())
"""English in lower case, and Chinese."""
