/// A colour scheme: what each slot and gradient looks like. Read from `themes/*.yaml` by the app.
public struct Theme: Hashable, Sendable {
    public enum Base: String, Hashable, Sendable { case dark, light }

    /// Everything that is wrong with a theme file, one line each.
    public struct Invalid: Error, Hashable, Sendable {
        public var problems: [String]
    }

    public var name: String
    public var base: Base
    /// By `Slot.rawValue`; nil: the terminal's own colour.
    private var slots: [RGB?]
    /// By `Gradient.rawValue`, 101 steps each.
    private var gradients: [[RGB]]

    /// A theme from the parts of its file.
    /// - palette: names to `#rrggbb`.
    /// - slots: slot name → palette name, `#rrggbb` or `default` (the terminal's own). Missing slots take the base's colour.
    /// - gradients: gradient name → two or more palette names or colours, separated by blanks or commas, from calm to alarming.
    /// - Throws: `Invalid` with every problem found.
    public init(name: String, base: Base = .dark, palette: [String: String], slots: [String: String], gradients: [String: String] = [:]) throws(Invalid) {
        var problems: [String] = []
        var colours: [String: RGB] = [:]
        // Sorted, so that the same file always gives the same messages.
        for (name, value) in palette.sorted(by: { $0.key < $1.key }) {
            if let rgb = RGB(hex: value) { colours[name] = rgb } else { problems.append("palette.\(name): \"\(value)\" is not a colour like #1a2b3c") }
        }
        func colour(_ text: String, _ place: String) -> RGB? {
            if let rgb = colours[text] ?? RGB(hex: text) { return rgb }
            if palette[text] == nil { problems.append("\(place): \"\(text)\" is neither in the palette nor a colour like #1a2b3c") }
            return nil
        }
        let fallback = base == .dark ? Theme.quarterdeckDark : Theme.plainLight
        var table = fallback.slots
        for (key, value) in slots.sorted(by: { $0.key < $1.key }) {
            guard let slot = Slot.allCases.first(where: { $0.name == key }) else {
                problems.append("slots.\(key): no such slot; known: \(Slot.allCases.map(\.name).joined(separator: " "))")
                continue
            }
            if value == "default" { table[Int(slot.rawValue)] = nil } else if let rgb = colour(value, "slots.\(key)") { table[Int(slot.rawValue)] = rgb }
        }
        var runs = fallback.gradients
        for (key, value) in gradients.sorted(by: { $0.key < $1.key }) {
            guard let gradient = Gradient.allCases.first(where: { $0.name == key }) else {
                problems.append("gradients.\(key): no such gradient; known: \(Gradient.allCases.map(\.name).joined(separator: " "))")
                continue
            }
            let names = value.split(whereSeparator: { $0 == " " || $0 == "," })
            let stops = names.compactMap { colour(String($0), "gradients.\(key)") }
            if names.count < 2 { problems.append("gradients.\(key): needs at least two colours") } else if stops.count == names.count { runs[Int(gradient.rawValue)] = Theme.steps(stops) }
        }
        guard problems.isEmpty else { throw Invalid(problems: problems) }
        self.init(name: name, base: base, slots: table, gradients: runs)
    }

    private init(name: String, base: Base, slots: [RGB?], gradients: [[RGB]]) {
        self.name = name
        self.base = base
        self.slots = slots
        self.gradients = gradients
    }

    /// The colour of a slot; nil: the terminal's own.
    public func resolve(_ slot: Slot) -> RGB? { slots[Int(slot.rawValue)] }

    public func resolve(_ color: Color) -> RGB? {
        switch color.kind {
        case .terminalDefault: nil
        case .slot(let slot): resolve(slot)
        case .gradient(let gradient, let step): gradients[Int(gradient.rawValue)][step]
        case .rgb(let rgb): rgb
        }
    }

    /// A style for a terminal of this depth. Costs a search in the palette: the backend keeps what it got, by style.
    public func concrete(_ style: Style, depth: ColorDepth) -> ConcreteStyle {
        if depth == .mono {
            return ConcreteStyle(foreground: .terminalDefault, background: .terminalDefault,
                                 attributes: style.attributes.union(Theme.monoAttributes(style)))
        }
        func colour(_ color: Color) -> TerminalColor {
            guard let rgb = resolve(color) else { return .terminalDefault }
            if depth == .trueColor { return .rgb(rgb) }
            return .indexed(rgb.quantised(to: depth)!)
        }
        var result = ConcreteStyle(foreground: colour(style.foreground), background: colour(style.background), attributes: style.attributes)
        if depth == .ansi16 || depth == .ansi8 {
            // With so few colours the page keeps the terminal's own background, and backgrounds that fell onto it are shown by
            // reverse video, as is text that would vanish in its background.
            let page = resolve(.background)?.quantised(to: depth)
            if style.background == .slot(.background) || resolve(style.background) == nil {
                result.background = .terminalDefault
            } else if case .indexed(let index) = result.background, index == page {
                result.background = .terminalDefault
                if Theme.isRaised(style.background) { result.attributes.formUnion(.reverse) }
            }
            if result.foreground == result.background { result.foreground = .terminalDefault }
            if case .indexed(let index) = result.foreground, index == page, result.background == .terminalDefault { result.foreground = .terminalDefault }
        }
        return result
    }

    /// Backgrounds that mean something and must be seen without colour.
    private static func isRaised(_ color: Color) -> Bool {
        guard case .slot(let slot) = color.kind else { return false }
        return switch slot {
        case .select, .header, .headerAttached, .headerAsk, .headerReadOnly, .mark: true
        default: false
        }
    }

    /// What replaces colour on a monochrome terminal.
    private static func monoAttributes(_ style: Style) -> Attributes {
        var attributes: Attributes = isRaised(style.background) ? .reverse : []
        if case .slot(let slot) = style.foreground.kind {
            switch slot {
            case .accent, .bad, .leader, .down, .title, .key, .focus, .change, .match, .warn: attributes.formUnion(.bold)
            case .faint: attributes.formUnion(.dim)
            default: break
            }
        }
        return attributes
    }

    private static func steps(_ stops: [RGB]) -> [RGB] {
        let points = stops.map { Oklab($0) }
        return (0...100).map { step in
            let place = Double(step) / 100 * Double(points.count - 1)
            let index = min(points.count - 2, Int(place))
            return points[index].mixed(with: points[index + 1], place - Double(index)).rgb
        }
    }

    // MARK: Built in

    private static func make(_ name: String, _ base: Base, _ table: (Slot) -> UInt32, _ gradients: (Gradient) -> [UInt32]) -> Theme {
        func rgb(_ value: UInt32) -> RGB { RGB(UInt8(value >> 16 & 0xff), UInt8(value >> 8 & 0xff), UInt8(value & 0xff)) }
        return Theme(name: name, base: base, slots: Slot.allCases.map { rgb(table($0)) }, gradients: Gradient.allCases.map { steps(gradients($0).map(rgb)) })
    }

    /// The default, also in `themes/quarterdeck-dark.yaml`; compiled in so that the first frame waits for no file.
    public static let quarterdeckDark = make("quarterdeck-dark", .dark, { slot in
        switch slot {
        case .background: 0x11151b
        case .text: 0xd5dae2
        case .dim: 0x8a94a3
        case .faint: 0x525c6b
        case .accent: 0x5fb3e4
        case .ok: 0x83c092
        case .warn: 0xe3b65f
        case .bad: 0xec6a66
        case .border: 0x3a4452
        case .focus: 0x5fb3e4
        case .title: 0xb9c2cf
        case .key: 0x5fb3e4
        case .select: 0x22303f
        case .selectText: 0xf0f4f9
        case .mark: 0x33304a
        case .match: 0xe3b65f
        case .overlay: 0x171d25
        case .leader: 0xf2cf63
        case .follower: 0x83c092
        case .candidate: 0xc79bf0
        case .learner: 0x6fc3c9
        case .down: 0xec6a66
        case .add: 0x83c092
        case .delete: 0xec6a66
        case .change: 0xe3b65f
        case .header: 0x1b2430
        case .headerAttached: 0x14322f
        case .headerAsk: 0x3a2f17
        case .headerReadOnly: 0x2b2738
        case .headerText: 0xd5dae2
        case .jsonKey: 0x7fb7e0
        case .jsonString: 0x9ccb97
        case .jsonNumber: 0xe3b65f
        case .jsonLiteral: 0xc79bf0
        case .jsonPunctuation: 0x7b8595
        case .series1: 0x4f9fd0
        case .series2: 0xc79bf0
        case .logApplied: 0x4f9fd0
        case .logCommitted: 0x8fd0f2
        case .logReceived: 0x7b8595
        case .logMissing: 0x3a4452
        }
    }, { gradient in
        switch gradient {
        case .load: [0x2f6f99, 0x5fb3e4, 0xbfe3f7]
        case .latency: [0x83c092, 0xe3b65f, 0xec6a66]
        case .lag: [0x8a94a3, 0xe3b65f, 0xec6a66]
        case .heat: [0x1b2a3a, 0x2f6f99, 0xbfe3f7]
        case .age: [0xd5dae2, 0x525c6b]
        }
    })

    /// What light themes fall back to.
    static let plainLight = make("plain-light", .light, { slot in
        switch slot {
        case .background: 0xfbfaf7
        case .text: 0x2b3138
        case .dim: 0x646d78
        case .faint: 0x9aa2ab
        case .accent: 0x1f6fb2
        case .ok: 0x2f8f4e
        case .warn: 0xa86a00
        case .bad: 0xc8322f
        case .border: 0xc4c9cf
        case .focus: 0x1f6fb2
        case .title: 0x3f4852
        case .key: 0x1f6fb2
        case .select: 0xdbe9f5
        case .selectText: 0x101418
        case .mark: 0xe9e1f5
        case .match: 0xa86a00
        case .overlay: 0xf3f1ec
        case .leader: 0xa86a00
        case .follower: 0x2f8f4e
        case .candidate: 0x7c46b4
        case .learner: 0x1b7f86
        case .down: 0xc8322f
        case .add: 0x2f8f4e
        case .delete: 0xc8322f
        case .change: 0xa86a00
        case .header: 0xe6eaee
        case .headerAttached: 0xd6ebe6
        case .headerAsk: 0xf4e6c4
        case .headerReadOnly: 0xe6e0ee
        case .headerText: 0x2b3138
        case .jsonKey: 0x1f6fb2
        case .jsonString: 0x2f7f43
        case .jsonNumber: 0xa86a00
        case .jsonLiteral: 0x7c46b4
        case .jsonPunctuation: 0x87909a
        case .series1: 0x3d86c2
        case .series2: 0x8d5bc0
        case .logApplied: 0x3d86c2
        case .logCommitted: 0x8fbfe6
        case .logReceived: 0xa9b1ba
        case .logMissing: 0xdfe3e7
        }
    }, { gradient in
        switch gradient {
        case .load: [0x9cc6e8, 0x3d86c2, 0x124a7c]
        case .latency: [0x2f8f4e, 0xa86a00, 0xc8322f]
        case .lag: [0x646d78, 0xa86a00, 0xc8322f]
        case .heat: [0xe6eef6, 0x3d86c2, 0x124a7c]
        case .age: [0x2b3138, 0x9aa2ab]
        }
    })
}
