/// The Latency view's panels; an empty rectangle is a panel that found no place.
struct LatencyLayout: Hashable {
    var heat = Rect.empty
    /// A second heat map, of the same width: gets below puts.
    var companion = Rect.empty
    var stages = Rect.empty
    var fsync = Rect.empty
    var rates = Rect.empty
    var slow = Rect.empty
    /// One row without a border: the workload and the verdict about it. Always there.
    var verdict: Rect

    /// - Parameters:
    ///   - members: rows of the tables by node.
    ///   - focus: the panel that has the keyboard; where there is room for few, it is one of them.
    ///   - hasSlow: something is in the list of slow requests.
    ///   - isEnlarged: the focused panel fills the body.
    init(body: Rect, members: Int, focus: Panel, hasSlow: Bool, isEnlarged: Bool = false) {
        var rest = body
        verdict = rest.takeBottom(1)
        if isEnlarged {
            switch focus {
            case .stages: stages = rest
            case .fsync: fsync = rest
            case .rates: rates = rest
            case .slow: slow = rest
            default: heat = rest
            }
            return
        }
        let rows = max(1, members)
        switch OverviewLayout.sizeClass(body) {
        case .small:
            // What is below changes with the focus: two tables, or the list.
            var lower = rest.takeBottom(min(7, rest.rows - 12))
            heat = rest
            switch focus {
            case .slow: slow = lower
            case .rates:
                stages = lower.takeLeft(lower.columns / 2)
                rates = lower
            case .fsync, .stages:
                stages = lower.takeLeft(lower.columns / 2)
                fsync = lower
            default:
                if hasSlow { slow = lower } else {
                    stages = lower.takeLeft(lower.columns / 2)
                    fsync = lower
                }
            }
        case .medium:
            let room = rest.rows
            slow = rest.takeBottom(min(8, room / 4))
            var middle = rest.takeBottom(min(max(rows + 4, 9), room / 3))
            fsync = middle.takeLeft(middle.columns / 2)
            rates = middle
            stages = rest.takeRight(min(46, max(38, rest.columns / 3)))
            heat = rest
        case .large:
            slow = rest.takeBottom(min(14, rest.rows / 4))
            var right = rest.takeRight(min(76, rest.columns * 38 / 100))
            stages = right.takeTop(min(14, right.rows / 3))
            rates = right.takeBottom(min(14, max(10, right.rows - rows - 5)))
            fsync = right
            heat = rest.takeTop((rest.rows + 1) / 2)
            companion = rest
        }
    }
}
