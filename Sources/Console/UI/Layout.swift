/// Where things are. Pure functions of the size and a few facts, so that a test can draw them.

/// The frame that all views share.
struct ScreenLayout: Hashable {
    static let minimum = Size(columns: 80, rows: 24)

    var header: Rect
    var tabs: Rect
    var body: Rect
    var crumbs: Rect
    var hints: Rect

    init(_ size: Size) {
        var rest = Rect(column: 0, row: 0, columns: size.columns, rows: size.rows)
        header = rest.takeTop(1)
        tabs = rest.takeTop(1)
        hints = rest.takeBottom(1)
        crumbs = rest.takeBottom(1)
        body = rest
    }
}

/// The Overview's panels; an empty rectangle is a panel that found no place.
struct OverviewLayout: Hashable {
    var nodes: Rect
    var ops = Rect.empty
    var latency = Rect.empty
    var histogram = Rect.empty
    var timeline = Rect.empty
    var events = Rect.empty
    var watch = Rect.empty
    /// Only on large screens.
    var raft = Rect.empty
    var heat = Rect.empty
    var roundTrips = Rect.empty
    var log = Rect.empty

    var panels: [Rect] { [nodes, ops, latency, histogram, timeline, events, watch, raft, heat, roundTrips, log] }

    enum Class { case small, medium, large }

    static func sizeClass(_ body: Rect) -> Class {
        if body.columns >= 160, body.rows >= 44 { return .large }
        if body.columns >= 110, body.rows >= 30 { return .medium }
        return .small
    }

    /// - Parameters:
    ///   - members: rows of the Nodes table.
    ///   - hasWatch: a watch is open, so a small stream can be shown.
    ///   - enlarged: the panel that fills the body, if one does.
    init(body: Rect, members: Int, hasWatch: Bool, enlarged: Panel? = nil) {
        var rest = body
        nodes = .empty
        if let enlarged {
            if enlarged == .events { events = body } else { nodes = body }
            return
        }
        let rows = max(1, members)
        switch OverviewLayout.sizeClass(body) {
        case .small:
            nodes = rest.takeTop(min(rows + 4, max(6, body.rows - 9)))
            let wanted = min(12, max(7, rest.rows / 2))
            var charts = rest.takeTop(rest.rows - wanted >= 4 ? wanted : max(4, rest.rows - 4))
            ops = charts.takeLeft(charts.columns / 2)
            latency = charts
            events = rest
        case .medium:
            nodes = rest.takeTop(min(rows + 5, body.rows - 18))
            var lower = rest.takeBottom(min(max(rows + 4, 8), rest.rows - 9))
            if hasWatch, rest.rows >= 13 { watch = rest.takeBottom(min(6, rest.rows - 9)) }
            var charts = rest
            ops = charts.takeLeft(charts.columns / 2)
            latency = charts
            timeline = lower.takeLeft(lower.columns * 3 / 5)
            events = lower
        case .large:
            var right = rest.takeRight(body.columns * 3 / 10)
            nodes = rest.takeTop(min(rows + 6, body.rows - 33))
            var charts = rest.takeTop(min(14, max(9, rest.rows * 29 / 100)))
            ops = charts.takeLeft(charts.columns / 3)
            latency = charts.takeLeft(charts.columns / 2)
            histogram = charts
            timeline = rest.takeTop(min(rows + 6, rest.rows - 12))
            log = rest.takeBottom(min(14, max(6, rest.rows * 4 / 10)))
            // The place of the stream stays also while no watch is open: panels do not jump.
            watch = rest
            raft = right.takeTop(min(18, max(16, right.rows * 32 / 100)))
            roundTrips = right.takeBottom(min(rows + 5, max(8, right.rows - 16)))
            heat = right.takeTop(min(16, max(8, right.rows / 2)))
            events = right
        }
    }
}

/// The Keys view's panels.
struct KeysLayout: Hashable {
    var tree: Rect
    var value: Rect
    /// Empty when history shares the value panel (small screens) or something is enlarged.
    var history: Rect

    init(body: Rect, enlarged: Panel? = nil, historyFocused: Bool = false) {
        if let enlarged {
            tree = enlarged == .tree ? body : .empty
            value = enlarged == .value ? body : .empty
            history = enlarged == .history ? body : .empty
            return
        }
        var rest = body
        tree = rest.takeLeft(max(34, min(90, body.columns * 38 / 100)))
        // One line of history is worth more than the tenth of the value, but not the other way round.
        history = rest.takeBottom(min(14, max(7, rest.rows * 2 / 5)))
        value = rest
    }
}

/// The Watch view's panels.
struct WatchLayout: Hashable {
    var list: Rect
    var stream: Rect

    init(body: Rect, watches: Int, enlarged: Panel? = nil) {
        if let enlarged {
            list = enlarged == .watchList ? body : .empty
            stream = enlarged == .stream ? body : .empty
            return
        }
        var rest = body
        list = rest.takeTop(min(max(watches, 1) + 3, max(4, body.rows / 3)))
        stream = rest
    }
}
